import Base
import IO

/// The segments of a log in their order, as they are on disk.
struct SegmentList {
  let directory: String
  /// Segments with their headers, oldest first; consecutive.
  private(set) var headers: [SegmentHeader] = []
  let spares: [String]

  /// The segments that hold something from `position` on.
  init(
    disk: any Disk, directory: String, names: JournalNames, from position: Int
  ) throws(JournalError) {
    self.directory = directory
    spares = names.spares.map(\.name)
    for (name, first) in names.needed(from: position) {
      let path = directory + "/" + name
      let (header, bytes) = try Self.read(disk, path)
      guard header.firstPosition == first else {
        throw .inconsistent("\(path) says that it begins at \(header.firstPosition)")
      }
      let whole = SegmentHeader.pageBytes + header.segmentBytes
      guard bytes >= whole else {
        throw .damaged(
          file: path, offset: bytes, position: first + max(0, bytes - SegmentHeader.pageBytes),
          reason: "the file ends here; a segment has \(whole) bytes")
      }
      headers.append(header)
    }
    try check()
  }

  var first: SegmentHeader? { headers.first }

  /// The end of the last segment.
  var end: Int { headers.last?.end ?? 0 }

  /// Removes the last segment if it begins at `position` or behind.
  mutating func dropLast(from position: Int) -> SegmentHeader? {
    guard let last = headers.last, last.firstPosition >= position else { return nil }
    return headers.removeLast()
  }

  private static func read(
    _ disk: any Disk, _ path: String
  ) throws(JournalError) -> (SegmentHeader, bytes: Int) {
    let page = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentHeader.pageBytes, alignment: 16)
    defer { page.deallocate() }
    let file = try system { () throws(SystemError) in try disk.open(path, .read) }
    let count: Int
    do throws(SystemError) {
      count = try file.read(at: 0, into: page)
    } catch {
      throw .reading(error, path)
    }
    let bytes = try system { () throws(SystemError) in try file.size }
    do throws(SegmentHeader.Problem) {
      return (try SegmentHeader(UnsafeRawBufferPointer(rebasing: page[..<count])), bytes)
    } catch {
      switch error {
      case .notASegment: throw .inconsistent("\(path) is not a segment")
      case .damaged:
        throw .damaged(file: path, offset: 0, position: 0, reason: "its header is damaged")
      case .stranger(let stranger): throw stranger.error(path)
      }
    }
  }

  private func check() throws(JournalError) {
    for (header, next) in zip(headers, headers.dropFirst()) {
      guard header.identity == next.identity, header.segmentBytes == next.segmentBytes else {
        throw .inconsistent(
          "\(directory)/\(SegmentFiles.name(next.firstPosition)) is of another log")
      }
      guard header.end == next.firstPosition else {
        throw .inconsistent(
          "a segment is missing between \(SegmentFiles.name(header.firstPosition)) and"
            + " \(SegmentFiles.name(next.firstPosition))")
      }
    }
    if let last = headers.last, last.hasSuccessor {
      throw .inconsistent(
        "\(directory)/\(SegmentFiles.name(last.end)) is missing: the segment before it says that the"
          + " log went on in it")
    }
  }
}
