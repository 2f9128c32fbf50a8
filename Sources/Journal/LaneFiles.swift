import Base

/// The lane files that hold something, and what of them is alive. What has died is given back to the
/// file system only when the log durably says why.
struct LaneFiles {
  private struct Extent {
    let offset: Int
    let size: Int
    var isAlive: Bool
  }

  private struct LaneFile {
    let isScratch: Bool
    /// In the order of their offsets.
    var extents: [Extent]
    var aliveCount: Int
    /// Blocks that have died and are not given back yet, as places in `extents`.
    var dying: [Int] = []
  }

  /// What the background thread is to give back.
  enum Return: Equatable, Sendable {
    case ranges(file: UInt32, isScratch: Bool, [Range<Int>])
    case file(UInt32, isScratch: Bool)
  }

  private var files: [UInt32: LaneFile] = [:]
  /// Files with blocks that have died since the log was last told.
  private var dying: Set<UInt32> = []
  /// Blocks that have died, and the position from which on the log says so.
  private var sealed: [(file: UInt32, blocks: [Int], position: Int)] = []
  /// Files without anything alive, and where the log says that they are removed.
  private var doomed: [(file: UInt32, isScratch: Bool, position: Int)] = []
  private var nextNumber: UInt32 = 1

  /// A number that no file has or had.
  mutating func takeNumber() -> UInt32 {
    defer { nextNumber += 1 }
    return nextNumber
  }

  mutating func used(_ number: UInt32) {
    nextNumber = max(nextNumber, number + 1)
  }

  /// The files that a checkpoint names.
  var listed: [UInt32] {
    files.filter { !$0.value.isScratch }.map(\.key).sorted()
  }

  var count: Int { files.count }
  func isScratch(_ number: UInt32) -> Bool { files[number]?.isScratch ?? false }

  /// Bytes of blocks that are alive.
  private(set) var aliveBytes = 0

  /// A file was made, or found; its blocks are alive or to be claimed.
  mutating func add(_ number: UInt32, isScratch: Bool, _ blocks: [LaneBlock], areAlive: Bool) {
    files[number] = LaneFile(
      isScratch: isScratch,
      extents: blocks.map { Extent(offset: $0.offset, size: $0.size, isAlive: areAlive) },
      aliveCount: areAlive ? blocks.count : 0)
    if areAlive { aliveBytes += blocks.reduce(0) { $0 + $1.size } }
    if blocks.isEmpty || !areAlive { dying.insert(number) }
  }

  /// A block of a file that was found is alive.
  mutating func claim(_ number: UInt32, at offset: Int) {
    guard let index = index(number, offset), !files[number]!.extents[index].isAlive else {
      invariantFailed("a block of lane file \(number) was claimed that is not there, or twice")
    }
    files[number]!.extents[index].isAlive = true
    files[number]!.aliveCount += 1
    aliveBytes += files[number]!.extents[index].size
  }

  /// Nobody needs the block any more.
  mutating func died(_ number: UInt32, at offset: Int) {
    guard let index = index(number, offset) else {
      invariantFailed("a block of lane file \(number) died that is not there")
    }
    files[number]!.dying.append(index)
    aliveBytes -= files[number]!.extents[index].size
    dying.insert(number)
  }

  /// All that has died so far is known to the log when it is durable up to `position`.
  mutating func seal(at position: Int) {
    for number in dying.sorted() {
      guard let blocks = files[number]?.dying else { continue }
      files[number]!.dying = []
      sealed.append((number, blocks, position))
    }
    dying.removeAll(keepingCapacity: true)
  }

  /// Whether `emptied` or `returns` have something to do.
  var hasSealed: Bool { !sealed.isEmpty || !doomed.isEmpty }

  /// Files of which nothing is alive now that the log is durable up to `position`; `dooms` has to
  /// tell the log of each that is not scratch, and then call `doom`. What is left of others to give
  /// back is in `ranges`.
  mutating func settle(upTo position: Int) -> (emptied: [UInt32], ranges: [Return]) {
    var emptied: [UInt32] = []
    var touched: [UInt32: [Int]] = [:]
    while let first = sealed.first, first.position <= position {
      sealed.removeFirst()
      guard files[first.file] != nil else { continue }
      for index in first.blocks { files[first.file]!.extents[index].isAlive = false }
      files[first.file]!.aliveCount -= first.blocks.count
      touched[first.file, default: []] += first.blocks
    }
    var ranges: [Return] = []
    for (number, blocks) in touched.sorted(by: { $0.key < $1.key }) {
      let file = files[number]!
      if file.aliveCount == 0, file.dying.isEmpty {
        emptied.append(number)
      } else {
        ranges.append(
          .ranges(file: number, isScratch: file.isScratch, Self.holes(file.extents, blocks)))
      }
    }
    return (emptied, ranges)
  }

  /// A file with nothing alive goes when the log is durable up to `position`.
  mutating func doom(_ number: UInt32, at position: Int) {
    guard let file = files.removeValue(forKey: number) else { return }
    doomed.append((number, file.isScratch, position))
  }

  /// The files that may go now that the log is durable up to `position`.
  mutating func removable(upTo position: Int) -> [Return] {
    let ready = doomed.filter { $0.isScratch || $0.position <= position }
    doomed.removeAll { $0.isScratch || $0.position <= position }
    return ready.map { .file($0.file, isScratch: $0.isScratch) }
  }

  /// The ranges without anything alive around dead blocks, each from the end of what is alive before to
  /// the beginning of what is alive behind.
  private static func holes(_ extents: [Extent], _ blocks: [Int]) -> [Range<Int>] {
    var result: [Range<Int>] = []
    for index in blocks.sorted() {
      if let last = result.last, extents[index].offset < last.upperBound { continue }
      var first = index
      while first > 0, !extents[first - 1].isAlive { first -= 1 }
      var last = index
      while last + 1 < extents.count, !extents[last + 1].isAlive { last += 1 }
      result.append(extents[first].offset..<extents[last].offset + extents[last].size)
    }
    return result
  }

  private func index(_ number: UInt32, _ offset: Int) -> Int? {
    guard let extents = files[number]?.extents else { return nil }
    var low = 0
    var high = extents.count
    while low < high {
      let middle = (low + high) / 2
      if extents[middle].offset < offset { low = middle + 1 } else { high = middle }
    }
    return low < extents.count && extents[low].offset == offset ? low : nil
  }
}
