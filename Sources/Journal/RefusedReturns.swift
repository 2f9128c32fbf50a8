/// What the file system did not take back of lane files, to be tried again: of each file as little as says all.
struct RefusedReturns {
  private var parts: [UInt32: LaneFiles.Return] = [:]

  var isEmpty: Bool { parts.isEmpty }

  mutating func add(_ part: LaneFiles.Return) {
    switch part {
    case .file(let number, _): parts[number] = part
    case .ranges(let number, let isScratch, let ranges):
      switch parts[number] {
      case nil: parts[number] = part
      case .file: break
      case .ranges(_, _, let before):
        // What has died since may have widened them.
        let rest = before.filter { old in
          !ranges.contains { $0.lowerBound <= old.lowerBound && old.upperBound <= $0.upperBound }
        }
        parts[number] = .ranges(file: number, isScratch: isScratch, rest + ranges)
      }
    }
  }

  mutating func take() -> [LaneFiles.Return] {
    defer { parts = [:] }
    return parts.sorted { $0.key < $1.key }.map(\.value)
  }
}
