import Base
import Glibc
import IO
import Journal

/// The segments of a journal as the tools see them: each is looked at by itself, and then whether they
/// belong together.
extension JournalSurvey {
  /// A file without a sound header that stands so far behind all others is no part of the log.
  static let gapMax = 1 << 40
  /// What is said of a segment of which no file tells how large it is.
  private static let segmentBytesGuess = SegmentHeader.pageBytes

  func readSegments(_ names: JournalNames) throws(JournalError) {
    let isBounded = checkpoint?.isSound ?? false
    var found: [Segment] = []
    for (name, position) in names.needed(from: isBounded ? checkpoint!.replayFrom : 0) {
      found.append(try segment(name, position))
    }
    measure(found)
    var end = isBounded ? checkpoint!.replayFrom : 0
    for segment in found {
      let isNear = segment.firstPosition - end <= Self.gapMax
      if segment.header != nil || isNear && segment.firstPosition % segmentBytes == 0 {
        segments.append(segment)
        end = segment.firstPosition + segmentBytes
      } else if !problems.contains(where: { $0.file == segment.name }) {
        problems.append(JournalProblem(segment.name, JournalNames.isNotOurs))
      }
    }
    checkSegments()
    checkBeginning()
    checkGaps()
  }

  /// Finds out how large segments are.
  private func measure(_ found: [Segment]) {
    if let sound = found.lazy.compactMap(\.header).first {
      segmentBytes = sound.segmentBytes
      isSegmentSizeKnown = true
      if identity == nil { identity = sound.identity }
    } else {
      let largest = (found.map(\.bytes).max() ?? 0) - SegmentHeader.pageBytes
      segmentBytes = max(
        Self.segmentBytesGuess, min(largest, SegmentHeader.segmentBytesMax) & ~4095)
    }
  }

  private func segment(_ name: String, _ position: Int) throws(JournalError) -> Segment {
    let page = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentHeader.pageBytes, alignment: 16)
    defer { page.deallocate() }
    let file = try system { () throws(SystemError) in try disk.open(path(name), .read) }
    let bytes = try system { () throws(SystemError) in try file.size }
    let count: Int
    do throws(SystemError) {
      count = try file.read(at: 0, into: page)
    } catch {
      guard error.code == EIO else { throw .system(error) }
      problems.append(JournalProblem(name, offset: 0, "it cannot be read: \(error)"))
      return Segment(firstPosition: position, header: nil, bytes: bytes)
    }
    let head = UnsafeRawBufferPointer(rebasing: page[..<count])
    return Segment(
      firstPosition: position, header: try header(head, name, position), bytes: bytes)
  }

  private func header(
    _ page: UnsafeRawBufferPointer, _ name: String, _ position: Int
  ) throws(JournalError) -> SegmentHeader? {
    do throws(SegmentHeader.Problem) {
      let header = try SegmentHeader(page)
      guard header.firstPosition == position else {
        let text = "its header says that it begins at \(header.firstPosition)"
        problems.append(JournalProblem(name, offset: 16, text))
        return nil
      }
      return header
    } catch {
      switch error {
      case .stranger(let stranger): throw stranger.error(path(name))
      case .notASegment: problems.append(JournalProblem(name, offset: 0, "this is no segment"))
      case .damaged: problems.append(JournalProblem(name, offset: 0, "its header is damaged"))
      }
      return nil
    }
  }

  func isCut(_ segment: Segment) -> Bool {
    segment.bytes < SegmentHeader.pageBytes + segmentBytes
  }

  /// Segments must be whole, and of one log.
  private func checkSegments() {
    for segment in segments {
      if isCut(segment), isSegmentSizeKnown {
        let whole = SegmentHeader.pageBytes + segmentBytes
        problems.append(
          JournalProblem(
            segment.name, offset: segment.bytes,
            "the file ends here; a segment has \(whole) bytes"))
      }
      if let header = segment.header,
        header.identity != identity || header.segmentBytes != segmentBytes
      {
        problems.append(JournalProblem(segment.name, offset: 24, "it is of another log"))
      }
    }
  }

  /// What the checkpoint needs must be there.
  private func checkBeginning() {
    let isKnown = checkpoint?.isSound ?? true
    if isKnown, let first = segments.first, first.firstPosition > checkpoint?.replayFrom ?? 0 {
      let text =
        checkpoint == nil
        ? "there is no checkpoint, and what stood before this segment is missing"
        : "the segments before this one, from position \(checkpoint!.replayFrom) on, are missing"
      problems.append(JournalProblem(first.name, text))
    }
    if let header = segments.first?.header, header.firstRecord > logEnd {
      let text = "its header says that its first record begins behind the log's end"
      problems.append(JournalProblem(SegmentFiles.name(header.firstPosition), offset: 40, text))
    }
    if segments.isEmpty, let checkpoint, checkpoint.isSound,
      checkpoint.position > checkpoint.replayFrom
    {
      problems.append(
        JournalProblem(checkpoint.name, "the segments that the checkpoint needs are missing"))
    }
  }

  /// Segments stand one behind the other, up to the last.
  private func checkGaps() {
    for gap in gaps {
      let more = (gap.count - 1) / segmentBytes
      let text =
        more == 0 ? "the segment is missing" : "this segment and \(more) behind it are missing"
      problems.append(JournalProblem(SegmentFiles.name(gap.lowerBound), text))
    }
    guard let last = segments.last, let header = last.header, header.hasSuccessor else { return }
    isTailMissing = true
    problems.append(
      JournalProblem(
        SegmentFiles.name(header.end),
        "the segment is missing: the one before it says that the log went on in it"))
  }

  /// Where segments are missing between others.
  private var gaps: [Range<Int>] {
    zip(segments, segments.dropFirst()).compactMap { segment, next in
      let end = segment.firstPosition + segmentBytes
      return end < next.firstPosition ? end..<next.firstPosition : nil
    }
  }

  /// The ranges of the log for which there is no file, or which are behind its end.
  var holes: [Range<Int>] {
    var holes = gaps
    for segment in segments where isCut(segment) {
      let there = max(0, segment.bytes - SegmentHeader.pageBytes)
      let start = segment.firstPosition + Record.padded(there)
      let end = segment.firstPosition + segmentBytes
      if start < end { holes.append(start..<end) }
    }
    if isTailMissing { holes.append(logEnd - segmentBytes..<logEnd) }
    return holes
  }

  // MARK: The bytes of the log

  /// The parts of a range of the log for which there is a file.
  package func pieces(of range: Range<Int>) -> [Range<Int>] {
    var pieces: [Range<Int>] = []
    for segment in segments {
      let piece = range.clamped(
        to: segment.firstPosition..<segment.firstPosition + segmentBytes)
      if let last = pieces.last, last.upperBound == piece.lowerBound, !piece.isEmpty {
        pieces[pieces.count - 1] = last.lowerBound..<piece.upperBound
      } else if !piece.isEmpty {
        pieces.append(piece)
      }
    }
    return pieces
  }

  /// Hands over the bytes of a piece of the log, part by part.
  func readLog(
    _ piece: Range<Int>, _ body: (Int, UnsafeRawBufferPointer) throws(SystemError) -> Void
  ) throws(JournalError) {
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: LogReader.readBytes, alignment: 16)
    defer { memory.deallocate() }
    let files = lenientFiles
    try system { () throws(SystemError) in
      for start in stride(from: piece.lowerBound, to: piece.upperBound, by: memory.count) {
        let part = UnsafeMutableRawBufferPointer(
          rebasing: memory[..<min(memory.count, piece.upperBound - start)])
        try files.read(position: start, into: part)
        try body(start - piece.lowerBound, UnsafeRawBufferPointer(part))
      }
    }
  }
}
