/// Sequences of a lane, as ranges in ascending order.
package struct SequenceSet: Equatable {
  package private(set) var ranges: [ClosedRange<UInt64>] = []

  package init() {}

  /// About what it takes of memory.
  var memoryBytes: Int { ranges.capacity * MemoryLayout<ClosedRange<UInt64>>.stride }

  /// Adds a range behind all others.
  package mutating func append(_ range: ClosedRange<UInt64>) {
    if let last = ranges.last, last.upperBound + 1 >= range.lowerBound {
      ranges[ranges.count - 1] =
        last.lowerBound...max(last.upperBound, range.upperBound)
    } else {
      ranges.append(range)
    }
  }

  /// Adds a sequence anywhere.
  mutating func insert(_ sequence: UInt64) {
    let index = firstIndex(reaching: sequence)
    if index < ranges.count, ranges[index].lowerBound <= sequence { return }
    let joinsNext = index < ranges.count && ranges[index].lowerBound == sequence + 1
    if index > 0, ranges[index - 1].upperBound + 1 == sequence {
      let end = joinsNext ? ranges.remove(at: index).upperBound : sequence
      ranges[index - 1] = ranges[index - 1].lowerBound...end
    } else if joinsNext {
      ranges[index] = sequence...ranges[index].upperBound
    } else {
      ranges.insert(sequence...sequence, at: index)
    }
  }

  /// Adds a range anywhere.
  mutating func insert(_ range: ClosedRange<UInt64>) {
    // Those that it overlaps or touches become one with it.
    let first = firstIndex(reaching: range.lowerBound == 0 ? 0 : range.lowerBound - 1)
    let end = ranges.indices.partition { ranges[$0].lowerBound <= range.upperBound + 1 }
    guard first < end else { return ranges.insert(range, at: first) }
    let lower = min(range.lowerBound, ranges[first].lowerBound)
    let upper = max(range.upperBound, ranges[end - 1].upperBound)
    ranges.replaceSubrange(first..<end, with: CollectionOfOne(lower...upper))
  }

  /// What of a range is in the set.
  package func intersection(_ range: ClosedRange<UInt64>) -> SequenceSet {
    var result = SequenceSet()
    for mine in ranges(reaching: range.lowerBound) {
      guard mine.lowerBound <= range.upperBound else { break }
      result.append(mine.clamped(to: range))
    }
    return result
  }

  /// What of a range is not in the set, in order.
  func gaps(in range: ClosedRange<UInt64>) -> [ClosedRange<UInt64>] {
    var gaps: [ClosedRange<UInt64>] = []
    var next = range.lowerBound
    for mine in ranges[firstIndex(reaching: next)...] {
      guard mine.lowerBound <= range.upperBound else { break }
      if mine.lowerBound > next { gaps.append(next...mine.lowerBound - 1) }
      guard mine.upperBound < range.upperBound else { return gaps }
      next = mine.upperBound + 1
    }
    gaps.append(next...range.upperBound)
    return gaps
  }

  package mutating func remove(_ removed: ClosedRange<UInt64>) {
    var index = firstIndex(reaching: removed.lowerBound)
    while index < ranges.count, ranges[index].lowerBound <= removed.upperBound {
      let range = ranges[index]
      var left: [ClosedRange<UInt64>] = []
      if range.lowerBound < removed.lowerBound {
        left.append(range.lowerBound...removed.lowerBound - 1)
      }
      if range.upperBound > removed.upperBound {
        left.append(removed.upperBound + 1...range.upperBound)
      }
      ranges.replaceSubrange(index...index, with: left)
      index += left.count
    }
  }

  package func contains(_ sequence: UInt64) -> Bool {
    let index = firstIndex(reaching: sequence)
    return index < ranges.count && ranges[index].lowerBound <= sequence
  }

  /// Whether all, some, or none of a range is in the set.
  package enum Overlap {
    case whole
    case part
    case none
  }

  package func overlap(_ range: ClosedRange<UInt64>) -> Overlap {
    let index = firstIndex(reaching: range.lowerBound)
    guard index < ranges.count, ranges[index].lowerBound <= range.upperBound else { return .none }
    let found = ranges[index]
    let isWhole =
      found.lowerBound <= range.lowerBound && found.upperBound >= range.upperBound
    return isWhole ? .whole : .part
  }

  /// The ranges from the first one on that ends at `sequence` or behind it.
  func ranges(reaching sequence: UInt64) -> ArraySlice<ClosedRange<UInt64>> {
    ranges[firstIndex(reaching: sequence)...]
  }

  /// The first range that ends at `sequence` or behind it.
  private func firstIndex(reaching sequence: UInt64) -> Int {
    ranges.indices.partition { ranges[$0].upperBound < sequence }
  }
}
