import Base
import IO

/// Reads a log's records in order and finds its end.
package final class LogReader {
  private let files: SegmentFiles
  package let end: Int
  /// Where the next record is expected.
  package var position: Int
  package var epoch: UInt64
  /// The last record said that the broker stopped in order.
  package var isClean = false
  /// The group that begins before this position has its end, or none does.
  private var wholeUpTo = 0
  /// Where the group began in which damage was found.
  package private(set) var brokenGroup: Int?
  /// Where no segment is, so that nothing has to be looked for.
  private let holes: [Range<Int>]

  /// Passes over records of 32 bytes in the search for a proof of damage: at most one for each place.
  private(set) var proofChecksums = 0

  private var buffer: UnsafeMutableRawBufferPointer
  private var bufferStart = 0
  private var bufferCount = 0

  package static let readBytes = 1 << 20
  /// How far behind the end of a log that was stopped in order a proof of damage is looked for.
  static let cleanProofBytes = 4 << 20
  /// A new life's epoch is at most so much above the last.
  static let epochStepMax: UInt64 = 16
  /// It is at most so much above that of the last record: lives may have come in between that wrote no
  /// record to the end, and left their epoch in the header of a segment.
  static let epochGapMax: UInt64 = 1024
  private static let epochRecordBytes = 32

  package init(
    files: SegmentFiles, position: Int, epoch: UInt64, end: Int, holes: [Range<Int>] = []
  ) {
    self.files = files
    self.holes = holes
    self.position = position
    self.epoch = epoch
    self.end = end
    buffer = .allocate(byteCount: Self.readBytes, alignment: 4096)
  }

  deinit {
    buffer.deallocate()
  }

  /// The next record; nil at the end of the log. The view is valid until the next call. Of a group all
  /// records come, or none.
  package func next() throws(JournalError) -> RecordView? {
    brokenGroup = nil
    while let view = try step() {
      guard OwnRecord.Kind(rawValue: view.kind) == .groupBegin, view.position >= wholeUpTo else {
        return view
      }
      let begin = view.position
      if try findEnd(of: begin) { return try valid(at: begin) }
      // The log ends where the group began.
      if position == begin { return nil }
    }
    try lookForDamage()
    return nil
  }

  /// Looks for the end of the group that begins at `begin`, behind whose mark the reader stands. It
  /// stands there again if there is one; otherwise before what came in its place, or, at the end of the
  /// log, where the group began.
  private func findEnd(of begin: Int) throws(JournalError) -> Bool {
    let (behind, own) = (position, epoch)
    while true {
      let before = epoch
      guard let view = try step() else { break }
      switch OwnRecord.Kind(rawValue: view.kind) {
      case .groupEnd where view.endedGroup == begin:
        wholeUpTo = position
        (position, epoch, isClean) = (behind, own, false)
        return true
      case .epoch, .groupBegin:
        (position, epoch, isClean) = (view.position, before, false)
        return false
      case .pad, .batch, .stop, .laneFile, .laneFileRemoved, .groupEnd, nil: continue
      }
    }
    brokenGroup = begin
    try lookForDamage()
    brokenGroup = nil
    if Sabotage.is(.appliesOpenGroup) {
      wholeUpTo = position
      (position, epoch, isClean) = (behind, own, false)
      return true
    }
    (position, epoch, isClean) = (begin, own, false)
    return false
  }

  /// The next record, whatever group it is in; nil where none is valid.
  package func step() throws(JournalError) -> RecordView? {
    var found = try valid(at: position)
    if found == nil { found = try validBehindSegment() }
    guard let view = found else { return nil }
    position = view.position
    position += Record.padded(view.size)
    switch OwnRecord.Kind(rawValue: view.kind) {
    case .epoch:
      epoch = view.u64(at: EpochRecord.epochOffset)
      isClean = false
    case .stop: isClean = true
    case .batch, .pad: break
    case .laneFile, .laneFileRemoved, .groupBegin, .groupEnd, nil: isClean = false
    }
    return view
  }

  /// A new life whose first record found no room in the segment: the rest is a pad of its epoch, which
  /// is known only from the record behind.
  private func validBehindSegment() throws(JournalError) -> RecordView? {
    let rest = files.segmentBytes - position % files.segmentBytes
    guard rest < Self.epochRecordBytes, let view = try valid(at: position + rest),
      view.kind == OwnRecord.Kind.epoch.rawValue
    else { return nil }
    let later = view.u64(at: EpochRecord.epochOffset)
    let pad = try bytes(at: position, rest)
    let isPad =
      Int(pad.load(as: UInt32.self)) == rest
      && pad.load(fromByteOffset: Record.checksumOffset, as: UInt32.self)
        == Record.checksum(pad, size: rest, position: position, epoch: later)
    // The buffer may have moved.
    return isPad ? try valid(at: position + rest) : nil
  }

  /// The record at `place`, if it is valid in the present epoch or begins a new one.
  package func valid(at place: Int) throws(JournalError) -> RecordView? {
    guard place + 8 <= end else { return nil }
    let size = Int(try bytes(at: place, 8).load(as: UInt32.self))
    guard size == 8 || size >= Record.headerSize, size <= Record.sizeMax, size <= end - place
    else { return nil }
    let base = try bytes(at: place, size)
    let view = RecordView(position: place, base: base, size: size)
    guard view.hasOwnSize else { return nil }
    let sum = base.load(fromByteOffset: Record.checksumOffset, as: UInt32.self)
    if sum == Record.checksum(base, size: size, position: place, epoch: epoch) { return view }
    if view.kind == OwnRecord.Kind.epoch.rawValue {
      let later = view.u64(at: EpochRecord.epochOffset)
      let own = Record.checksum(base, size: size, position: place, epoch: later)
      if later > epoch, later < 1 << 62, sum == own { return view }
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
      if base.load(as: UInt32.self) == 32, proofEpoch(base, at: place) != nil {
        throw damage("a later record at \(place) proves that it was written")
      }
      place = self.place(behind: place)
    }
  }

  /// Where a search goes on.
  @inline(__always)
  package func place(behind place: Int) -> Int {
    let next = place + 8
    for hole in holes where hole.contains(next) { return hole.upperBound }
    return next
  }

  /// The epoch of 32 bytes that are a record that was written when the one at `position` was durable: a
  /// batch that says so, of this life or of the next one that wrote any, or the beginning of a later
  /// life. nil if they prove nothing.
  package func proofEpoch(_ base: UnsafeRawPointer, at place: Int) -> UInt64? {
    let view = RecordView(position: place, base: base, size: 32)
    switch OwnRecord.Kind(rawValue: view.kind) {
    case .epoch:
      let says = view.u64(at: EpochRecord.epochOffset)
      guard says > epoch, says < 1 << 62 else { return nil }
      proofChecksums += 1
      let sum = base.load(fromByteOffset: Record.checksumOffset, as: UInt32.self)
      return sum == Record.checksum(base, size: 32, position: place, epoch: says) ? says : nil
    case .batch:
      let says = view.u64(at: BatchRecord.durableBeforeOffset)
      // Nothing is durable that is not written; what was found by chance hardly ever says so.
      guard says > UInt64(position), says <= UInt64(place) else { return nil }
      return batchEpoch(in: epoch...epoch + Self.epochGapMax, base, at: place)
    case .pad, .stop, .laneFile, .laneFileRemoved, .groupBegin, .groupEnd, nil: return nil
    }
  }

  /// Which of these epochs a batch record is of, if it is valid in any. There are fewer than 2^32.
  package func batchEpoch(
    in range: ClosedRange<UInt64>, _ base: UnsafeRawPointer, at place: Int
  ) -> UInt64? {
    proofChecksums += 1
    let half = Record.epoch(base, size: 32, position: place)
    let found = range.lowerBound + UInt64(half &- UInt32(truncatingIfNeeded: range.lowerBound))
    return range.contains(found) ? found : nil
  }

  private func damage(_ reason: String) -> JournalError {
    let first = position - position % files.segmentBytes
    return .damaged(
      file: files.path(SegmentFiles.name(first)),
      offset: SegmentHeader.pageBytes + position - first, position: position, reason: reason)
  }

  /// Memory of `count` bytes of the log, read as far as necessary.
  package func bytes(at place: Int, _ count: Int) throws(JournalError) -> UnsafeRawPointer {
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
      let first = place - place % files.segmentBytes
      throw .reading(
        error, files.path(SegmentFiles.name(first)),
        offset: SegmentHeader.pageBytes + place - first, position: place)
    }
    bufferStart = place
    bufferCount = wanted
  }
}
