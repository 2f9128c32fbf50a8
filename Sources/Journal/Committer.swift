import Base
import Glibc
import IO
import Synchronization

/// The core's end of the commit thread, which computes checksums, writes one batch at a time, and
/// says when it is durable.
final class Committer: Sendable {
  private let worker: any Worker
  private let writer: SegmentWriter
  private let wake: @Sendable () -> Void
  private let result = Mutex<CommitResult?>(nil)

  /// `wake` is called on the commit thread when a result waits.
  init(
    worker: any Worker, files: SegmentFiles, isSynced: Bool, wake: @escaping @Sendable () -> Void
  ) {
    self.worker = worker
    self.wake = wake
    writer = SegmentWriter(files: files, isSynced: isSynced)
  }

  /// Hands a batch over; the one before must have been finished.
  func submit(_ batch: CommitBatch) {
    worker.submit { [self] in
      let outcome = writer.write(batch)
      result.withLock { result in
        invariant(result == nil, "two batches at once")
        result = outcome
      }
      wake()
    }
  }

  /// How the batch ended, once.
  func takeResult() -> CommitResult? {
    result.withLock { result in
      defer { result = nil }
      return result
    }
  }

  /// Blocks until the batch that was handed over has ended.
  func waitForResult() {
    worker.drain()
  }

  /// Ends the thread after the batch it is writing.
  func stop() {
    worker.stop()
  }
}

/// Writes batches to segment files. The commit thread alone uses it, which is why it may be handed
/// there.
final class SegmentWriter: @unchecked Sendable {
  private let files: SegmentFiles
  private let isSynced: Bool
  private var target: WriteTarget?
  private var targetStart = -1
  /// The header of the segment that was made last, as it was written then.
  private var made: SegmentHeader?
  /// The last page of a batch, which is padded with zeros up to 4096 bytes.
  private let tailPage: UnsafeMutableRawBufferPointer
  private var vectors: [iovec] = []

  private static let pageBytes = BlockMemory.pageBytes

  init(files: SegmentFiles, isSynced: Bool) {
    self.files = files
    self.isSynced = isSynced
    tailPage = .allocate(byteCount: Self.pageBytes, alignment: Self.pageBytes)
  }

  deinit {
    tailPage.deallocate()
  }

  func write(_ batch: CommitBatch) -> CommitResult {
    do throws(WriteFailure) {
      for slice in batch.slices { Self.fillChecksums(slice, epoch: batch.epoch) }
      var index = 0
      while index < batch.slices.count {
        index = try writeRun(batch, from: index)
      }
      return .durable(end: batch.end)
    } catch {
      switch error {
      case .noSegment(let cause): return .postponed("\(cause)")
      case .unknown(let cause):
        if Sabotage.is(.goesOnAfterFailedWrite) { return .durable(end: batch.end) }
        return .failed("\(cause)")
      }
    }
  }

  private enum WriteFailure: Error {
    /// The segment could not be made or opened. What the batch has written before is whole and may
    /// be written again.
    case noSegment(SystemError)
    /// A write or a sync failed.
    case unknown(SystemError)
  }

  /// Writes the slices from `first` on that are in one segment; a slice that reaches over the
  /// segment's end is cut. Returns the next slice.
  private func writeRun(_ batch: CommitBatch, from first: Int) throws(WriteFailure) -> Int {
    var index = first
    let start = batch.slices[first].position
    let segment = start - start % files.segmentBytes
    vectors.removeAll(keepingCapacity: true)
    let aligned = start & ~(Self.pageBytes - 1)
    try open(segment, firstRecord: start, epoch: batch.epoch)
    while index < batch.slices.count, batch.slices[index].position < segment + files.segmentBytes {
      let slice = batch.slices[index]
      let end = slice.position + slice.count
      add(slice, from: slice.position, to: min(end, segment + files.segmentBytes))
      index += 1
      if end > segment + files.segmentBytes {
        try flush(batch, at: SegmentHeader.pageBytes + aligned - segment)
        try writeRest(of: slice, from: segment + files.segmentBytes, batch)
        return index
      }
    }
    try flush(batch, at: SegmentHeader.pageBytes + aligned - segment)
    return index
  }

  /// Writes what of a large block lies in the segments from `position` on.
  private func writeRest(
    of slice: CommitBatch.Slice, from position: Int, _ batch: CommitBatch
  ) throws(WriteFailure) {
    var segment = position
    let end = slice.position + slice.count
    while segment < end {
      try open(
        segment, firstRecord: Self.firstRecord(of: slice, from: segment), epoch: batch.epoch)
      vectors.removeAll(keepingCapacity: true)
      add(slice, from: segment, to: min(end, segment + files.segmentBytes))
      try flush(batch, at: SegmentHeader.pageBytes)
      segment += files.segmentBytes
    }
  }

  /// Adds the pages of a slice that hold `from..<to`; a last page that is not full goes through
  /// `tailPage`, since the core may be writing behind the slice.
  private func add(_ slice: CommitBatch.Slice, from: Int, to: Int) {
    let start = from & ~(Self.pageBytes - 1)
    let fullEnd = to & ~(Self.pageBytes - 1)
    let blockBase = slice.base - (slice.position - slice.blockStart)
    if fullEnd > start {
      vectors.append(
        iovec(iov_base: blockBase + (start - slice.blockStart), iov_len: fullEnd - start))
    }
    if to > fullEnd {
      let page = max(fullEnd, start)
      tailPage.initializeMemory(as: UInt8.self, repeating: 0)
      tailPage.copyMemory(
        from: UnsafeRawBufferPointer(
          start: blockBase + (page - slice.blockStart), count: to - page))
      vectors.append(iovec(iov_base: tailPage.baseAddress, iov_len: Self.pageBytes))
    }
  }

  private func flush(_ batch: CommitBatch, at offset: Int) throws(WriteFailure) {
    guard let target else { return }
    // A write that was cut short leaves its mark in the vectors, which are not used again.
    let failure = vectors.withUnsafeMutableBufferPointer { vectors -> SystemError? in
      do throws(SystemError) {
        try target.write(at: offset, vectors: vectors)
        if batch.beginsLife, !isSynced { try target.sync() }
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw .unknown(failure) }
  }

  /// Keeps the header that was made last in `made`, so that the one before need not be read again.
  private func open(_ segment: Int, firstRecord: Int, epoch: UInt64) throws(WriteFailure) {
    guard segment != targetStart else { return }
    target = nil
    targetStart = -1
    let before = segment - files.segmentBytes
    let previous = made
    do throws(SystemError) {
      if files.disk.exists(files.path(SegmentFiles.name(segment))) {
        // It may have got its name without that having become durable.
        if !Sabotage.is(.opensUnsyncedSegment) { try files.disk.syncDirectory(files.directory) }
        target = try files.open(segment, isSynced: isSynced)
      } else {
        let header = SegmentHeader(
          firstPosition: segment, segmentBytes: files.segmentBytes, identity: files.identity,
          firstRecord: firstRecord, epoch: epoch)
        if Sabotage.is(.marksSegmentEarly) { try files.mark(before, hasSuccessor: true) }
        target = try files.create(header, isSynced: isSynced)
        made = header
      }
      // Before anything stands in it: from now on it is known if it is missing.
      if before >= 0 { try files.mark(before, hasSuccessor: true, known: previous) }
    } catch {
      throw .noSegment(error)
    }
    targetStart = segment
  }

  /// Where the first record of a slice that does not begin before `position` begins; the slice's end
  /// if none does.
  private static func firstRecord(of slice: CommitBatch.Slice, from position: Int) -> Int {
    var offset = 0
    while offset < slice.count,
      slice.position + offset < position || Sabotage.is(.misnamesFirstRecord)
    {
      offset += Record.padded(Int((slice.base + offset).load(as: UInt32.self)))
    }
    return slice.position + offset
  }

  /// Writes the checksum of every record in a slice.
  private static func fillChecksums(_ slice: CommitBatch.Slice, epoch: UInt64) {
    var offset = 0
    while offset < slice.count {
      let base = slice.base + offset
      let size = Int(base.load(as: UInt32.self))
      invariant(size >= 8 && size <= slice.count - offset, "a record reaches out of its block")
      let sum = Record.checksum(
        base, size: size, position: slice.position + offset, epoch: epoch)
      base.storeBytes(of: sum, toByteOffset: Record.checksumOffset, as: UInt32.self)
      offset += Record.padded(size)
    }
  }
}
