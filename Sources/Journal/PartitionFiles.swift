import Base
import IO

/// Records of a stream that have moved out of the log: a run of one partition's records, in a file of batches with
/// an index beside it. Only the last segment of a partition grows; what is behind `bytes` and `batchCount` in the
/// files is of a round that did not count, and is written over.
public struct PartitionSegment: Equatable, Sendable {
  /// The offset of its first record.
  public let base: UInt64
  /// One behind that of its last record.
  public internal(set) var end: UInt64
  public internal(set) var bytes: Int
  public internal(set) var batchCount: Int
  /// When its latest record was stored, in wall-clock milliseconds.
  public internal(set) var timeMax: Int64

  public init(base: UInt64, end: UInt64, bytes: Int, batchCount: Int, timeMax: Int64) {
    self.base = base
    self.end = end
    self.bytes = bytes
    self.batchCount = batchCount
    self.timeMax = timeMax
  }
}

/// Where segments of partitions are: in a directory of their own beside the log.
package enum PartitionFiles {
  package static let directory = "streams"
  /// Of an index: for each batch the first offset, where it begins, and the latest time of all records so far.
  package static let indexEntryBytes = 24

  private static func digits(_ number: UInt64, _ count: Int) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: max(0, count - text.count)) + text
  }

  /// Without the ending.
  package static func stem(_ partition: UInt32, base: UInt64) -> String {
    "\(directory)/\(digits(UInt64(partition), 8))-\(digits(base, 16))"
  }

  package static func batches(_ partition: UInt32, base: UInt64) -> String {
    stem(partition, base: base) + ".batches"
  }

  package static func index(_ partition: UInt32, base: UInt64) -> String {
    stem(partition, base: base) + ".index"
  }

  /// It ends like a file of a segment.
  package static func isSuffix(of name: String) -> Bool {
    name.hasSuffix(".batches") || name.hasSuffix(".index")
  }

  /// Partition and first offset of a file's name, without its directory.
  package static func parse(_ name: String) -> (partition: UInt32, base: UInt64)? {
    guard let dot = name.firstIndex(of: "."), [".batches", ".index"].contains(name[dot...]) else {
      return nil
    }
    let parts = name[..<dot].split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, parts[0].utf8.count == 8, parts[1].utf8.count == 16,
      let partition = UInt32(parts[0], radix: 16), let base = UInt64(parts[1], radix: 16),
      stem(partition, base: base) == "\(directory)/\(name[..<dot])"
    else { return nil }
    return (partition, base)
  }
}

/// How messages of the log become batches of a partition, and come back; the broker knows both forms.
public protocol PartitionForm: Sendable {
  /// A batch of the messages that these records of the log are, the first of which has this offset, and when the
  /// latest was stored.
  func batch(of records: [RecordView], from offset: UInt64) -> (bytes: [UInt8], timeMax: Int64)

  /// Fills a page's memory with the messages of the batches that `input` begins with; see `PartitionPage`.
  func fill(_ page: inout PartitionPage, from input: UnsafeRawBufferPointer) -> PageResult
}

public enum PageResult: Equatable, Sendable {
  case filled
  /// The first batch has so many bytes, and more than there is.
  case needsInput(Int)
  /// The first batch's messages take so many bytes of memory.
  case needsRoom(Int)
  case damaged(String)
}

/// A block of memory with messages of some batches that follow each other:
///
///     0   number of messages   u32
///     8   where the first batch begins in the file, and where the last ends   u64, u64
///     24  of each message 16 bytes: packed as in `LaneEntry` u64, offset in the block u32, 0 u32
///     the messages, as records of the log without destinations
public struct PartitionPage {
  public let memory: UnsafeMutableRawBufferPointer
  private let begin: Int
  static let headerBytes = 24
  public static let indexBytes = 16

  init(_ memory: UnsafeMutableRawBufferPointer, begin: Int) {
    self.memory = memory
    self.begin = begin
  }

  /// Bytes that so many messages take with their records of so many bytes, padded, together.
  public static func size(count: Int, recordBytes: Int) -> Int {
    headerBytes + count * indexBytes + recordBytes
  }

  /// Where the records of so many messages begin.
  public static func recordsStart(count: Int) -> Int { headerBytes + count * indexBytes }

  public mutating func setEntry(_ index: Int, packed: UInt64, offset: Int) {
    let place = Self.headerBytes + index * Self.indexBytes
    memory.storeBytes(of: packed, toByteOffset: place, as: UInt64.self)
    memory.storeBytes(of: UInt64(offset), toByteOffset: place + 8, as: UInt64.self)
  }

  /// It has so many messages, of so many bytes of the input.
  public mutating func finish(count: Int, inputBytes: Int) {
    memory.storeBytes(of: UInt32(count), as: UInt32.self)
    memory.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
    memory.storeBytes(of: UInt64(begin), toByteOffset: 8, as: UInt64.self)
    memory.storeBytes(of: UInt64(begin + inputBytes), toByteOffset: 16, as: UInt64.self)
  }

  static func count(_ base: UnsafeRawPointer) -> Int { Int(base.load(as: UInt32.self)) }
  static func end(_ base: UnsafeRawPointer) -> Int {
    Int(base.load(fromByteOffset: 16, as: UInt64.self))
  }
  static func entry(_ base: UnsafeRawPointer, _ index: Int) -> (packed: UInt64, offset: UInt32) {
    let place = headerBytes + index * indexBytes
    return (
      base.load(fromByteOffset: place, as: UInt64.self),
      base.load(fromByteOffset: place + 8, as: UInt32.self)
    )
  }
}

/// What a page is read from.
public struct PageSource: Sendable, Equatable {
  public enum Beginning: Equatable, Hashable, Sendable {
    /// A batch begins there in the file.
    case position(Int)
    /// The batch that has this offset.
    case offset(UInt64)
    /// The first batch that has something as late as this date.
    case date(Int64)
  }

  public let partition: UInt32
  public let segment: PartitionSegment
  public let beginning: Beginning
  public let form: any PartitionForm

  public init(
    partition: UInt32, segment: PartitionSegment, beginning: Beginning, form: any PartitionForm
  ) {
    self.partition = partition
    self.segment = segment
    self.beginning = beginning
    self.form = form
  }

  public static func == (left: Self, right: Self) -> Bool {
    left.partition == right.partition && left.segment == right.segment
      && left.beginning == right.beginning
  }
}

/// Reads pages; on the reader thread.
struct PageReader {
  let files: SegmentFiles
  let source: PageSource

  /// So many bytes of a file at once.
  private static let inputBytes = 256 << 10

  func read(into memory: UnsafeMutableRawBufferPointer) throws(SystemError) -> PageResult {
    let path = files.path(PartitionFiles.batches(source.partition, base: source.segment.base))
    let (begin, first) = try position()
    let file = try files.disk.open(path, .read)
    var wanted = min(Self.inputBytes, source.segment.bytes - begin)
    var page = PartitionPage(memory, begin: begin)
    while true {
      guard wanted > 0 else { return .damaged("\(path) ends before its last record") }
      let input = UnsafeMutableRawBufferPointer.allocate(byteCount: wanted, alignment: 8)
      defer { input.deallocate() }
      let count = try file.read(at: begin, into: input)
      let result = source.form.fill(&page, from: UnsafeRawBufferPointer(rebasing: input[..<count]))
      switch result {
      case .needsInput(let bytes) where bytes > wanted && bytes <= source.segment.bytes - begin:
        wanted = bytes
      case .needsInput: return .damaged("the batch at \(begin) of \(path) is cut")
      case .damaged(let text): return .damaged("the batch at \(begin) of \(path) \(text)")
      case .filled where first != nil && first != firstOffset(of: memory):
        return .damaged("the index of \(path) says something else than the file")
      case .filled, .needsRoom: return result
      }
    }
  }

  private func firstOffset(of page: UnsafeMutableRawBufferPointer) -> UInt64? {
    page.baseAddress.map { PartitionPage.entry($0, 0).packed >> 8 }.map { $0 - 1 }
  }

  /// Where the first batch begins, and with which offset if the index said that.
  private func position() throws(SystemError) -> (Int, first: UInt64?) {
    if case .position(let position) = source.beginning { return (position, nil) }
    let path = files.path(PartitionFiles.index(source.partition, base: source.segment.base))
    let file = try files.disk.open(path, .read)
    var low = 0
    var high = source.segment.batchCount
    // The last batch whose first offset is not above; or the first whose latest record is as late.
    while low < high {
      let middle = (low + high) / 2
      let entry = try Self.entry(middle, of: file)
      let isBefore =
        switch source.beginning {
        case .offset(let offset): entry.offset <= offset
        case .date(let date): entry.time < date
        case .position: false
        }
      if isBefore { low = middle + 1 } else { high = middle }
    }
    if case .offset = source.beginning { low -= 1 }
    let found = min(max(low, 0), source.segment.batchCount - 1)
    let entry = try Self.entry(found, of: file)
    return (Int(clamping: entry.position), entry.offset)
  }

  private static func entry(
    _ number: Int, of file: any DiskFile
  ) throws(SystemError) -> (offset: UInt64, position: UInt64, time: Int64) {
    let size = PartitionFiles.indexEntryBytes
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
    _ = try file.read(at: number * size, into: bytes)
    return (
      bytes.load(as: UInt64.self), bytes.load(fromByteOffset: 8, as: UInt64.self),
      bytes.load(fromByteOffset: 16, as: Int64.self)
    )
  }
}

/// A segment of a partition, by its first offset.
public struct SegmentFile: Hashable, Sendable {
  public let partition: UInt32
  public let base: UInt64

  public init(partition: UInt32, base: UInt64) {
    self.partition = partition
    self.base = base
  }
}

/// Segments that are to be removed.
public enum LeavingSegments: Sendable {
  case files([SegmentFile])
  /// All of some partitions.
  case partitions(Set<UInt32>)
  /// All that nobody knows.
  case allBut(Set<SegmentFile>)

  fileprivate func has(_ file: SegmentFile) -> Bool {
    switch self {
    case .files(let files): files.contains(file)
    case .partitions(let partitions): partitions.contains(file.partition)
    case .allBut(let known): !known.contains(file)
    }
  }
}

extension Journal {
  /// Both files of a segment are there, with all that is to be in them: what is missing would otherwise be
  /// noticed by readers alone, and what is published would be written behind it.
  public func requireFiles(
    of segment: PartitionSegment, in partition: UInt32
  ) throws(JournalError) {
    let wanted = [
      (PartitionFiles.batches(partition, base: segment.base), segment.bytes),
      (
        PartitionFiles.index(partition, base: segment.base),
        segment.batchCount * PartitionFiles.indexEntryBytes
      ),
    ]
    for (name, bytes) in wanted {
      let path = files.path(name)
      guard files.disk.kind(path) == .file else {
        throw .inconsistent("the segment \(path) of a stream is missing")
      }
      let size = try system { () throws(SystemError) in try files.disk.open(path, .read).size }
      guard size >= bytes else {
        throw .inconsistent(
          "the segment \(path) of a stream ends at byte \(size), and had \(bytes) bytes")
      }
    }
  }

  /// Removes segments, behind all rounds that are being written.
  public func remove(_ leaving: LeavingSegments) {
    let (files, background) = (files, background)
    background.submit {
      do throws(SystemError) {
        let directory = files.path(PartitionFiles.directory)
        guard files.disk.exists(directory) else { return }
        if case .files(let leaving) = leaving {
          for file in leaving {
            try files.disk.remove(
              files.path(PartitionFiles.batches(file.partition, base: file.base)))
            try files.disk.remove(
              files.path(PartitionFiles.index(file.partition, base: file.base)))
          }
          return
        }
        for name in try files.disk.list(directory) {
          guard let file = PartitionFiles.parse(name),
            leaving.has(SegmentFile(partition: file.partition, base: file.base))
          else { continue }
          try files.disk.remove(directory + "/" + name)
        }
      } catch {
        background.note("segments of streams could not be removed: \(error)")
      }
    }
  }
}
