import Base
import Glibc
import IO

/// Blocks leave memory when they are on disk, and come back when they are needed.
extension Journal {
  /// Most bytes that are being read back at the same time; at least one block is.
  static let loadingBytesMax = 8 << 20
  /// What a disk does not give so many times, such as a file that is missing, is taken for damaged: whoever
  /// waits for it is told.
  static let readTriesMax = 15
  static let toldReadsMax = 64

  /// Asks for the block's bytes, if they are neither in memory nor on their way. `poll` says when they
  /// are there.
  public func load(_ index: UInt32) {
    let block = blocks[Int(index)]
    guard block.base == nil, !block.isLoading, !block.hasFailed else { return }
    invariant(
      block.home != .memory && block.home != .nowhere, "a block without memory is not on disk")
    blocks[Int(index)].isLoading = true
    if loadingBytes > 0, loadingBytes + block.capacity > Self.loadingBytesMax {
      waitingLoads.append(index)
    } else {
      submit(load: index)
    }
  }

  private func submit(load index: UInt32) {
    let capacity = blocks[Int(index)].capacity
    loadingBytes += capacity
    reader.submit(request(index, into: memory.allocate(capacity)))
  }

  /// Begins loads that had to wait. Returns those of blocks that nobody needs any more, which end
  /// without having been read.
  private func submitWaitingLoads() -> [UInt32] {
    var forgotten: [UInt32] = []
    while let next = waitingLoads.first {
      let block = blocks[Int(next)]
      if block.home == .nowhere {
        release(slot: next)
        forgotten.append(next)
      } else if loadingBytes == 0 || loadingBytes + block.capacity <= Self.loadingBytesMax {
        submit(load: next)
      } else {
        break
      }
      _ = waitingLoads.removeFirst()
    }
    return forgotten
  }

  /// As `load`, for a block that will be needed soon: only while the cache has room for it.
  public func loadAhead(_ index: UInt32) {
    guard loadingBytes < Self.loadingBytesMax, cachedBytes + loadingBytes < settings.cacheBytes
    else { return }
    load(index)
  }

  /// The block is in memory.
  @inline(__always)
  public func isResident(_ index: UInt32) -> Bool { blocks[Int(index)].base != nil }

  /// The block is on its way into memory.
  public func isLoading(_ index: UInt32) -> Bool { blocks[Int(index)].isLoading }

  /// Bytes of memory that the block takes when it is in memory.
  public func byteCount(of index: UInt32) -> Int { blocks[Int(index)].capacity }

  /// The block could not be read the last time; `forgetFailures` lets it be tried again.
  public func hasFailed(_ index: UInt32) -> Bool { blocks[Int(index)].hasFailed }

  /// What is damaged about the block; nil if it is not, as far as is known.
  public func damage(of index: UInt32) -> String? {
    blocks[Int(index)].isDamaged ? damage[index] : nil
  }

  /// Reports a problem to the operator, once.
  public func note(problem: String) { problems.add(problem) }

  /// Lets all blocks that could not be read, also those that were read ahead, be tried again.
  public func forgetFailures() {
    for index in failedLoads { blocks[Int(index)].hasFailed = false }
    failedLoads.removeAll()
  }

  private func request(
    _ index: UInt32, into base: UnsafeMutableRawPointer
  ) -> BlockReader.Request {
    BlockReader.Request(
      slot: index, source: source(index),
      memory: .init(start: base, count: blocks[Int(index)].used))
  }

  private func source(_ index: UInt32) -> BlockReader.Source {
    let block = blocks[Int(index)]
    switch block.home {
    case .log:
      return .log(
        position: block.start, epoch: block.epoch, checkedFrom: Int(block.checkedFrom))
    case .lane:
      return .lane(path: lanePath(block.file), file: block.file, offset: block.start)
    case .page:
      guard let page = pages[index] else { invariantFailed("a page has no source") }
      return .page(page)
    case .memory, .nowhere: invariantFailed("a block that is not on disk is to be read")
    }
  }

  // MARK: Pages

  /// A block for messages of a partition that are in a segment; it is kept until it is released once. They are
  /// there when it was loaded.
  public func openPage(_ source: PageSource) -> UInt32 {
    let index = takeSlot()
    let bytes = BlockMemory.usualBytes
    blocks[Int(index)] = Block(home: .page, start: 0, used: bytes, capacity: bytes)
    pages[index] = source
    retain(index)
    return index
  }

  /// How many messages a page in memory has, and where the last batch of them ends in the segment.
  public func extent(ofPage index: UInt32) -> (count: Int, end: Int) {
    guard blocks[Int(index)].home == .page, let base = blocks[Int(index)].base else {
      invariantFailed("a page was asked that is not in memory")
    }
    return (PartitionPage.count(base), PartitionPage.end(base))
  }

  /// A message of a page in memory.
  public func entry(ofPage index: UInt32, _ number: Int) -> LaneEntry {
    guard let base = blocks[Int(index)].base else {
      invariantFailed("a page was asked that is not in memory")
    }
    let (packed, offset) = PartitionPage.entry(base, number)
    return LaneEntry(packed: packed, location: RecordLocation(block: index, offset: offset))
  }

  func lanePath(_ number: UInt32) -> String {
    files.path(LaneTable.name(number, isScratch: laneFiles.isScratch(number)))
  }

  /// Takes what the reader has finished; returns the blocks that are in memory now, or that failed.
  func takeLoaded() -> [UInt32] {
    var loaded: [UInt32] = []
    for finished in reader.takeFinished() {
      let index = finished.request.slot
      let base = finished.request.memory.baseAddress!
      let block = blocks[Int(index)]
      loadingBytes -= block.capacity
      blocks[Int(index)].isLoading = false
      guard block.home != .nowhere else {
        // Nobody needs it any more.
        memory.free(base, block.capacity)
        release(slot: index)
        loaded.append(index)
        continue
      }
      if let bytes = finished.neededBytes {
        memory.free(base, block.capacity)
        blocks[Int(index)].capacity = BlockMemory.padded(bytes)
        blocks[Int(index)].used = blocks[Int(index)].capacity
        load(index)
        continue
      }
      if let problem = finished.problem {
        memory.free(base, block.capacity)
        if finished.request.source != source(index) {
          // It moved into another file meanwhile.
          load(index)
          continue
        }
        blocks[Int(index)].hasFailed = true
        if problem.isDamage {
          blocks[Int(index)].isDamaged = true
          damage[index] = problem.text
        } else {
          noteFailed(index, problem)
        }
      } else {
        keep(index, base)
      }
      loaded.append(index)
    }
    return loaded + submitWaitingLoads()
  }

  private func keep(_ index: UInt32, _ base: UnsafeMutableRawPointer) {
    if !failedReads.isEmpty { forgetFailures(of: index) }
    blocks[Int(index)].base = base
    cachedBytes += blocks[Int(index)].capacity
    statistics.blocksReadBack += 1
    noteResident(index)
  }

  /// What was told is told again when it comes back after all could be read, or was given up.
  func forgetFailures(of index: UInt32) {
    failedReads[index] = nil
    if failedReads.isEmpty { toldReads.removeAll() }
  }

  private func noteFailed(_ index: UInt32, _ problem: BlockReader.Problem) {
    let tries = (failedReads[index] ?? 0) + (problem.isPassing ? 0 : 1)
    guard tries < Self.readTriesMax else {
      blocks[Int(index)].isDamaged = true
      damage[index] = "messages could not be read in \(tries) tries: \(problem.text)"
      return
    }
    failedReads[index] = tries
    noteFailed(index)
    guard toldReads.count < Self.toldReadsMax, toldReads.insert(problem.text).inserted else {
      return
    }
    problems.add("messages could not be read back, and are tried again: \(problem.text)")
  }

  private func noteFailed(_ index: UInt32) {
    failedLoads.append(index)
    // Slots that were given up meanwhile are listed without need.
    if failedLoads.count > 2 * blockCount + 64 {
      failedLoads = Set(failedLoads).filter { blocks[Int($0)].hasFailed }.sorted()
    }
  }

  /// Reads a block while recovery waits for it.
  func loadNow(_ index: UInt32) throws(JournalError) {
    guard blocks[Int(index)].base == nil else { return }
    let base = memory.allocate(blocks[Int(index)].capacity)
    let request = request(index, into: base)
    if let problem = reader.read(request).problem {
      memory.free(base, blocks[Int(index)].capacity)
      throw .inconsistent("messages could not be read: \(problem.text)")
    }
    keep(index, base)
  }

  /// Blocks are on their way into memory.
  public var isLoading: Bool { loadingBytes > 0 }

  // MARK: Leaving memory

  /// Drops blocks from memory, the oldest first, down to the cache's size.
  func dropOldBlocks() {
    while cachedBytes > settings.cacheBytes, !resident.isEmpty {
      drop(resident.removeFirst())
    }
  }

  private func drop(_ index: UInt32) {
    let block = blocks[Int(index)]
    guard block.isDroppable, let base = block.base else { return }
    memory.free(base, block.capacity)
    cachedBytes -= block.capacity
    blocks[Int(index)].base = nil
    statistics.blocksDropped += 1
  }

  /// The block may be dropped from memory. Those that were given up stay listed until they are more
  /// than the others.
  func noteResident(_ index: UInt32) {
    resident.append(index)
    guard resident.count > 2 * residentCount + 64 else { return }
    var seen = Set<UInt32>()
    for _ in 0..<resident.count {
      let index = resident.removeFirst()
      if blocks[Int(index)].isDroppable, seen.insert(index).inserted { resident.append(index) }
    }
    residentCount = resident.count
  }

  /// Keeps the memory of blocks within its limit; once per turn, when no message is being looked at.
  public func trim() {
    if cachedBytes > settings.cacheBytes { dropOldBlocks() }
    if memory.isGivingBack { memory.giveBack() }
  }

  /// Large memory goes back to the kernel, a slice in each `trim`.
  public var isGivingBackMemory: Bool { memory.isGivingBack }

  /// Gives memory that is kept for the next messages back to the kernel.
  public func releaseUnused() {
    memory.trim()
  }

  /// Does something that takes time and that nobody waits for on the background thread, behind what that
  /// has to do; not after `close`.
  public func inBackground(_ job: @escaping @Sendable () -> Void) {
    background.submit(job)
  }

  // MARK: Loans

  /// Keeps the bytes of a block that is in memory where they are, and as they are, whatever becomes of
  /// its messages and of the block, until `endLoan`.
  public func lend(_ index: UInt32) -> BlockLoan {
    guard let base = blocks[Int(index)].base else {
      invariantFailed("a block was lent that is not in memory")
    }
    memory.lend(base)
    return BlockLoan(base: base)
  }

  /// Each loan is ended once.
  public func endLoan(_ loan: BlockLoan) {
    memory.endLoan(loan.base)
  }

  /// Bytes of blocks that are gone, or only on disk, and are kept in memory for loans.
  public var lentBytes: Int { memory.lentBytes }

  /// Blocks in memory or on disk that somebody needs.
  public var blockCount: Int { blockCapacity - freeSlots.count }

  /// Bytes of memory that messages take.
  public var memoryBytes: Int { memory.bytesInUse }

  /// Bytes of memory that messages take and that nothing but their consumption frees.
  public var pinnedBytes: Int { memory.bytesInUse - min(cachedBytes, settings.cacheBytes) }
}

/// The right to read a block's memory.
public struct BlockLoan: BitwiseCopyable {
  fileprivate let base: UnsafeRawPointer
}
