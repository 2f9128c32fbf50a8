import Base

/// The lane files that hold something, and what of them is alive: the books by which space goes
/// back to the file system. It touches no file; the journal does what it says.
///
/// A block of a file goes through four states. Alive: somebody needs it. Dying: nobody does, but
/// the log was not told why. Sealed: the log says so when it is durable up to some position. Dead:
/// it is, so that the block may become a hole. A file of which all is dead is doomed: a record says
/// that it goes, and it is removed when that record is durable. A file whose blocks were merged
/// into another is retired, and goes when a durable checkpoint names the other one.
///
/// What would break: recovery takes as alive whatever checkpoint and log do not settle. A hole, or
/// a removed file, of which the log does not durably say that it is dead is a message lost, or a
/// start refused for a missing file, after the next crash. Giving back too late costs only space.
struct LaneFiles {
  private struct Extent {
    let offset: Int
    let size: Int
    var isAlive: Bool
    /// The journal's block, as long as somebody needs it; then the slot is another block's, which may be
    /// of this file too.
    var slot: UInt32?
  }

  private struct LaneFile {
    let isScratch: Bool
    /// In the order of their offsets.
    var extents: [Extent]
    /// Of all blocks, as the file was written.
    let bytes: Int
    var aliveCount: Int
    /// Bytes of blocks that somebody needs.
    var neededBytes = 0
    /// All that was alive has moved into another file; this one goes when a checkpoint says so.
    var isRetired = false
    /// A block of it is damaged, so that it is not merged with others.
    var isKept = false
    /// Blocks that have died and of which the log was not told, as places in `extents`.
    var dying: [Int] = []
    /// Dead blocks that are not given back yet, as places in `extents`.
    var dead: [Int] = []
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
  private var sealed: [(file: UInt32, blocks: [Int], bytes: Int, position: Int)] = []
  /// Files without anything alive, and where the log says that they are removed.
  private var doomed: [(file: UInt32, isScratch: Bool, bytes: Int, position: Int)] = []
  private var nextNumber: UInt32 = 1

  /// A number that no file has or had.
  mutating func takeNumber() -> UInt32 {
    defer { nextNumber += 1 }
    return nextNumber
  }

  mutating func used(_ number: UInt32) {
    nextNumber = max(nextNumber, number &+ 1)
  }

  /// The files that a checkpoint names.
  var listed: [UInt32] {
    files.filter { !$0.value.isScratch && !$0.value.isRetired }.map(\.key).sorted()
  }

  var count: Int { files.count }
  func isScratch(_ number: UInt32) -> Bool { files[number]?.isScratch ?? false }

  /// Bytes of blocks that are alive.
  private(set) var aliveBytes = 0

  /// A file was made, or found; its blocks are alive or to be claimed.
  mutating func add(_ number: UInt32, isScratch: Bool, _ blocks: [LaneBlock], areAlive: Bool) {
    let bytes = blocks.reduce(0) { $0 + $1.size }
    files[number] = LaneFile(
      isScratch: isScratch,
      extents: blocks.map { Extent(offset: $0.offset, size: $0.size, isAlive: areAlive) },
      bytes: bytes, aliveCount: areAlive ? blocks.count : 0,
      dead: areAlive ? [] : Array(blocks.indices))
    if areAlive {
      aliveBytes += bytes
      files[number]!.neededBytes = bytes
    }
    mayBeSparse = true
    if blocks.isEmpty || !areAlive { dying.insert(number) }
    if !blocks.isEmpty, !areAlive { hasDead = true }
  }

  /// A block of a file that was found is alive.
  mutating func claim(_ number: UInt32, at offset: Int) {
    guard let index = index(number, offset), !files[number]!.extents[index].isAlive else {
      invariantFailed("a block of lane file \(number) was claimed that is not there, or twice")
    }
    files[number]!.extents[index].isAlive = true
    files[number]!.aliveCount += 1
    files[number]!.neededBytes += files[number]!.extents[index].size
    aliveBytes += files[number]!.extents[index].size
  }

  /// The journal's block for a block of a file.
  mutating func bind(_ number: UInt32, at offset: Int, to slot: UInt32) {
    guard let index = index(number, offset) else {
      invariantFailed("lane file \(number) has no block at \(offset)")
    }
    files[number]!.extents[index].slot = slot
  }

  /// Nobody needs the block any more.
  mutating func died(_ number: UInt32, at offset: Int) {
    guard let index = index(number, offset) else {
      invariantFailed("a block of lane file \(number) died that is not there")
    }
    files[number]!.dying.append(index)
    files[number]!.extents[index].slot = nil
    if Sabotage.is(.makesHolesEarly) {
      files[number]!.extents[index].isAlive = false
      files[number]!.dead.append(index)
    }
    files[number]!.neededBytes -= files[number]!.extents[index].size
    aliveBytes -= files[number]!.extents[index].size
    mayBeSparse = true
    dying.insert(number)
  }

  /// All that has died so far is known to the log when it is durable up to `position`.
  mutating func seal(at position: Int) {
    for number in dying.sorted() {
      guard let file = files[number] else { continue }
      files[number]!.dying = []
      let bytes = file.dying.reduce(0) { $0 + file.extents[$1].size }
      sealed.append((number, file.dying, bytes, position))
      sealedBytes += bytes
    }
    dying.removeAll(keepingCapacity: true)
  }

  /// Bytes of blocks that are sealed, and of files that are doomed.
  private(set) var sealedBytes = 0

  /// Whether `settle` or `removable` may have something to do.
  var hasSealed: Bool { !sealed.isEmpty || !doomed.isEmpty }

  /// What has died is dead, now that the log is durable up to `position`. Returns the files of which
  /// nothing is alive: the log has to be told of each that is not scratch, and then `doom` called.
  mutating func settle(upTo position: Int) -> [UInt32] {
    var touched: Set<UInt32> = []
    let count = sealed.firstIndex { $0.position > position } ?? sealed.count
    sealedBytes -= sealed[..<count].reduce(0) { $0 + $1.bytes }
    for first in sealed[..<count] where files[first.file] != nil {
      for index in first.blocks { files[first.file]!.extents[index].isAlive = false }
      files[first.file]!.aliveCount -= first.blocks.count
      files[first.file]!.dead += first.blocks
      hasDead = hasDead || !first.blocks.isEmpty
      touched.insert(first.file)
    }
    sealed.removeFirst(count)
    return touched.sorted().filter { files[$0]!.aliveCount == 0 && files[$0]!.dying.isEmpty }
  }

  /// Something has died, or was found dead, since holes were made.
  private(set) var hasDead = false

  /// The holes of at least `bytesMin` that can be made into files of which something is alive.
  mutating func takeHoles(bytesMin: Int) -> [Return] {
    hasDead = false
    var result: [Return] = []
    for (number, file) in files.sorted(by: { $0.key < $1.key }) where !file.dead.isEmpty {
      let holes = Self.holes(file.extents, file.dead)
      guard holes.contains(where: { $0.count >= bytesMin }) else { continue }
      files[number]!.dead = []
      result.append(
        .ranges(
          file: number, isScratch: file.isScratch,
          holes.filter { $0.count >= bytesMin }))
    }
    return result
  }

  /// A file with nothing alive goes when the log is durable up to `position`.
  mutating func doom(_ number: UInt32, at position: Int) {
    guard let file = files.removeValue(forKey: number) else { return }
    if file.isRetired { unretire(file) }
    doomed.append((number, file.isScratch, file.bytes, position))
    sealedBytes += file.bytes
  }

  /// The files that may go now that the log is durable up to `position`.
  mutating func removable(upTo position: Int) -> [Return] {
    let ready = doomed.filter { $0.isScratch || $0.position <= position }
    doomed.removeAll { $0.isScratch || $0.position <= position }
    sealedBytes -= ready.reduce(0) { $0 + $1.bytes }
    return ready.map { .file($0.file, isScratch: $0.isScratch) }
  }

  // MARK: Merging

  /// Some file may have come to have little left since that was last looked at; whoever has looked at all
  /// takes it back.
  var mayBeSparse = true

  /// Files of which so little is left that they had better be one.
  func sparse(bytesMax: Int) -> [UInt32] {
    files.filter { _, file in
      !file.isScratch && !file.isRetired && !file.isKept && file.neededBytes <= bytesMax
    }.map(\.key).sorted()
  }

  mutating func keep(_ number: UInt32) {
    files[number]?.isKept = true
  }

  /// The journal's blocks for what somebody needs.
  func slots(_ number: UInt32) -> [UInt32] { files[number]?.extents.compactMap(\.slot) ?? [] }

  /// Everything that somebody needs has moved out of the file.
  mutating func retire(_ number: UInt32) {
    guard let file = files[number] else { return }
    aliveBytes -= file.neededBytes
    files[number]!.neededBytes = 0
    files[number]!.isRetired = true
    retiredCount += 1
    retiredBytes += file.bytes
  }

  private(set) var retiredCount = 0
  /// Of files that are retired, as they were written.
  private(set) var retiredBytes = 0

  private mutating func unretire(_ file: LaneFile) {
    retiredCount -= 1
    retiredBytes -= file.bytes
  }

  /// Files that a checkpoint no longer names, but an older one may.
  var retired: [UInt32] { files.filter(\.value.isRetired).map(\.key).sorted() }

  /// The file is removed.
  mutating func forget(_ number: UInt32) {
    if let file = files.removeValue(forKey: number), file.isRetired { unretire(file) }
  }

  // MARK: Holes

  /// The ranges without anything alive around dead blocks, each from the end of what is alive before to
  /// the beginning of what is alive behind.
  private static func holes(_ extents: [Extent], _ blocks: [Int]) -> [Range<Int>] {
    var result: [Range<Int>] = []
    for index in blocks.sorted() {
      if extents[index].isAlive { continue }
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
