import Base
import IO

/// Why a log cannot be used.
public enum JournalError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A record that had been durable is not valid.
  case damaged(file: String, offset: Int, position: Int, reason: String)
  /// The file was written by a newer version.
  case newer(file: String, version: UInt32)
  /// Files are missing or do not belong together.
  case inconsistent(String)
  case system(SystemError)

  /// Tools can say more of it, and mend it.
  public var isDamage: Bool {
    switch self {
    case .damaged, .inconsistent: true
    case .newer, .system: false
    }
  }

  public var description: String {
    switch self {
    case .damaged(let file, let offset, let position, let reason):
      "the journal is damaged: \(file), offset \(offset) (log position \(position)): \(reason)"
    case .newer(let file, let version):
      "\(file) has format version \(version), newer than this program can read"
    case .inconsistent(let reason): "the journal is inconsistent: \(reason)"
    case .system(let error): "\(error)"
    }
  }
}

/// The segments of a log in their order, as they are on disk.
struct SegmentList {
  let directory: String
  /// Segments with their headers, oldest first; consecutive.
  private(set) var headers: [SegmentHeader] = []
  private(set) var spares: [String] = []

  /// The segments that hold something from `position` on.
  init(disk: any Disk, directory: String, from position: Int) throws(JournalError) {
    self.directory = directory
    let names = try system { () throws(SystemError) in try disk.list(directory) }
      .filter { $0.hasSuffix(".segment") }
    spares = names.filter { $0.hasPrefix("spare-") }
    let segments = names.filter { !$0.hasPrefix("spare-") }
    // Older ones are on their way to become spares; their content is of no interest.
    let first = segments.last { $0 <= SegmentFiles.name(position) } ?? ""
    for name in segments where name >= first {
      let header = try Self.header(disk, directory + "/" + name)
      guard SegmentFiles.name(header.firstPosition) == name else {
        throw .inconsistent("\(name) says that it begins at \(header.firstPosition)")
      }
      headers.append(header)
    }
    try check()
  }

  var first: SegmentHeader? { headers.first }

  /// The end of the last segment.
  var end: Int { headers.last.map { $0.firstPosition + $0.segmentBytes } ?? 0 }

  mutating func dropFrom(_ position: Int) -> [SegmentHeader] {
    let dropped = headers.filter { $0.firstPosition >= position }
    headers.removeAll { $0.firstPosition >= position }
    return dropped
  }

  private static func header(
    _ disk: any Disk, _ path: String
  ) throws(JournalError) -> SegmentHeader {
    let page = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentHeader.pageBytes, alignment: 16)
    defer { page.deallocate() }
    let count = try system { () throws(SystemError) in
      try disk.open(path, .read).read(at: 0, into: page)
    }
    do throws(SegmentHeader.Problem) {
      return try SegmentHeader(UnsafeRawBufferPointer(rebasing: page[..<count]))
    } catch {
      switch error {
      case .notASegment: throw .inconsistent("\(path) is not a segment")
      case .damaged:
        throw .damaged(file: path, offset: 0, position: 0, reason: "its header is damaged")
      case .newerVersion(let version): throw .newer(file: path, version: version)
      }
    }
  }

  private func check() throws(JournalError) {
    for (header, next) in zip(headers, headers.dropFirst()) {
      guard header.identity == next.identity, header.segmentBytes == next.segmentBytes else {
        throw .inconsistent("\(SegmentFiles.name(next.firstPosition)) is of another log")
      }
      guard header.firstPosition + header.segmentBytes == next.firstPosition else {
        throw .inconsistent(
          "a segment is missing between \(SegmentFiles.name(header.firstPosition)) and"
            + " \(SegmentFiles.name(next.firstPosition))")
      }
    }
  }
}

/// Reads a log's records in order and finds its end.
final class LogReader {
  private let files: SegmentFiles
  let end: Int
  /// Where the next record is expected.
  var position: Int
  var epoch: UInt64
  /// The last record said that the broker stopped in order.
  var isClean = false

  private var buffer: UnsafeMutableRawBufferPointer
  private var bufferStart = 0
  private var bufferCount = 0

  static let readBytes = 1 << 20
  /// How far behind the end of a log that was stopped in order a proof of damage is looked for.
  static let cleanProofBytes = 4 << 20
  /// A new life's epoch is at most so much above the last.
  static let epochStepMax: UInt64 = 16
  private static let epochRecordBytes = 32

  init(files: SegmentFiles, position: Int, epoch: UInt64, end: Int) {
    self.files = files
    self.position = position
    self.epoch = epoch
    self.end = end
    buffer = .allocate(byteCount: Self.readBytes, alignment: 4096)
  }

  deinit {
    buffer.deallocate()
  }

  /// The next record; nil at the end of the log. The view is valid until the next call.
  func next() throws(JournalError) -> RecordView? {
    var found = try valid(at: position)
    if found == nil { found = try validBehindSegment() }
    guard let view = found else {
      try lookForDamage()
      return nil
    }
    position = view.position
    position += Record.padded(view.size)
    switch view.kind {
    case Record.epoch:
      epoch = view.payload.loadUnaligned(as: UInt64.self)
      isClean = false
    case Record.stop: isClean = true
    case Record.batch, Record.pad: break
    default: isClean = false
    }
    return view
  }

  /// A new life whose first record found no room in the segment: the rest is a pad of its epoch, which
  /// is known only from the record behind.
  private func validBehindSegment() throws(JournalError) -> RecordView? {
    let rest = files.segmentBytes - position % files.segmentBytes
    guard rest < Self.epochRecordBytes, let view = try valid(at: position + rest),
      view.kind == Record.epoch
    else { return nil }
    let later = view.payload.loadUnaligned(as: UInt64.self)
    let pad = try bytes(at: position, rest)
    let isPad =
      Int(pad.load(as: UInt32.self)) == rest
      && pad.load(fromByteOffset: Record.checksumOffset, as: UInt32.self)
        == Record.checksum(pad, size: rest, position: position, epoch: later)
    // The buffer may have moved.
    return isPad ? try valid(at: position + rest) : nil
  }

  /// The record at `place`, if it is valid in the present epoch or begins a new one.
  func valid(at place: Int) throws(JournalError) -> RecordView? {
    guard place + 8 <= end else { return nil }
    let size = Int(try bytes(at: place, 8).load(as: UInt32.self))
    guard size >= 8, size == 8 || size >= Record.headerSize, place + size <= end else {
      return nil
    }
    let base = try bytes(at: place, size)
    let view = RecordView(position: place, base: base, size: size)
    let sum = base.load(fromByteOffset: Record.checksumOffset, as: UInt32.self)
    if sum == Record.checksum(base, size: size, position: place, epoch: epoch) { return view }
    if view.kind == Record.epoch, view.payload.count == 16 {
      let later = view.payload.loadUnaligned(as: UInt64.self)
      let own = Record.checksum(base, size: size, position: place, epoch: later)
      if later > epoch, sum == own { return view }
    }
    return nil
  }

  /// Throws if a later record proves that the one at `position` had been durable.
  private func lookForDamage() throws(JournalError) {
    if Sabotage.is(.takesDamageForTornTail) { return }
    let limit = isClean ? min(end, position + Self.cleanProofBytes) : end
    var place = position + 8
    while place + 32 <= limit {
      let base = try bytes(at: place, 32)
      if base.load(as: UInt32.self) == 32, try isProof(base, at: place) {
        throw damage("a later record at \(place) proves that it was written")
      }
      place += 8
    }
  }

  /// Whether 32 bytes are a record that was written when the one at `position` was durable: a batch
  /// that says so, of this life or of the next, or the beginning of a later life.
  func isProof(_ base: UnsafeRawPointer, at place: Int) throws(JournalError) -> Bool {
    let view = RecordView(position: place, base: base, size: 32)
    let says = view.payload.loadUnaligned(as: UInt64.self)
    let sum = base.load(fromByteOffset: Record.checksumOffset, as: UInt32.self)
    switch view.kind {
    case Record.epoch:
      return says > epoch
        && sum == Record.checksum(base, size: 32, position: place, epoch: says)
    case Record.batch:
      guard says > UInt64(position) else { return false }
      return (epoch...epoch + Self.epochStepMax).contains {
        sum == Record.checksum(base, size: 32, position: place, epoch: $0)
      }
    default: return false
    }
  }

  private func damage(_ reason: String) -> JournalError {
    let first = position - position % files.segmentBytes
    return .damaged(
      file: files.path(SegmentFiles.name(first)),
      offset: SegmentHeader.pageBytes + position - first, position: position, reason: reason)
  }

  /// Memory of `count` bytes of the log, read as far as necessary.
  func bytes(at place: Int, _ count: Int) throws(JournalError) -> UnsafeRawPointer {
    if place < bufferStart || place + count > bufferStart + bufferCount {
      try fill(from: place, count)
    }
    return UnsafeRawPointer(buffer.baseAddress! + (place - bufferStart))
  }

  private func fill(from place: Int, _ count: Int) throws(JournalError) {
    if count > buffer.count {
      buffer.deallocate()
      buffer = .allocate(byteCount: max(count, 2 * buffer.count), alignment: 4096)
    }
    let wanted = min(buffer.count, end - place)
    do throws(SystemError) {
      try files.read(
        position: place, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted]))
    } catch {
      throw .system(error)
    }
    bufferStart = place
    bufferCount = wanted
  }
}
