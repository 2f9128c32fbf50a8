import Base
import IO

/// Where a record stands: its block and the offset in it.
public struct RecordLocation: BitwiseCopyable, Equatable, Sendable {
  public let block: UInt32
  public let offset: UInt32

  @inline(__always)
  public init(block: UInt32, offset: UInt32) {
    self.block = block
    self.offset = offset
  }
}

/// The core's end of the write-ahead log and of the lane files, and the memory of transient messages,
/// which have the same form but no file. The core thread alone uses it.
///
/// `append` writes a record into the open block and returns where its payload goes: nothing is
/// copied later. At the turn's end `commit` hands all that was appended to the commit thread, one
/// batch at a time, and `poll` takes what the threads have done: a batch is durable, a block was
/// read back, a round or a checkpoint is over. The background thread writes lane files and
/// checkpoints, the reader thread reads blocks; each gets values, and results wait until they are
/// taken.
///
/// A block is a piece of memory or of a file with many records. It lives while a queue entry refers
/// to it, while it is open, and until it is durable. With its last reference it is dead: then its
/// segment can be recycled, or its place in a lane file be given back.
///
/// What must hold: a block that is being committed, or read by a round, stays where it is in memory
/// (`isPending`, `isKept`); every `retain` has one `release`, or a segment is recycled under a
/// message (too many) or never (too few); nothing is taken for durable before `durablePosition`
/// says so; and after a commit has failed nothing is appended that somebody is promised.
public final class Journal {
  public struct Settings: Sendable {
    public var segmentBytes = 64 << 20
    /// A confirm promises that the message survives power loss; otherwise only the process.
    public var isSynced = true
    /// Blocks that are on disk and kept in memory as well; others are read back when they are needed.
    public var cacheBytes = 16 << 20
    /// What is older than so many bytes of the log moves into lane files.
    public var windowBytes = 64 << 20
    /// Most bytes of one batch, so that no commit takes long; a single larger record is one batch.
    public var batchBytesMax = 16 << 20
    /// Above so much that waits to be committed, publishers have to wait.
    public var uncommittedBytesMax = 64 << 20
    /// Smaller holes in lane files are not worth their place in the file system's books.
    public var holeBytesMin = 64 << 10
    /// So many lane files of which little is left are made one.
    public var sparseFilesMin = 32
    /// Memory of transient messages above which the oldest move into lane files.
    public var transientBytesMax = 256 << 20
    /// Free bytes of the file system below which no new segment is made.
    public var diskReserveBytes = 64 << 20

    public init() {}
  }

  /// What the journal needs of the world.
  public struct Environment {
    public var disk: any Disk = SystemDisk()
    /// Makes the workers, by their names.
    public var worker: (String) throws(SystemError) -> any Worker = { (name) throws(SystemError) in
      try ThreadWorker(name: name)
    }
    /// Asked on the background thread now and then: what is wrong around the journal, if anything is.
    public var watch: @Sendable () -> String? = { nil }
    /// For the identity of a new log.
    public var random: () -> UInt64 = { .random(in: .min ... .max) }

    public init() {}
  }

  let settings: Settings
  let files: SegmentFiles
  let committer: Committer
  let background: Background
  let reader: BlockReader
  /// Counts the lives of the log.
  var epoch: UInt64 = 0
  /// Where the records end that begin this life, until they are committed; they are a batch of their own.
  var beginningEnd: Int?

  /// All blocks; an index stays valid while something refers to the block.
  var blocks: UnsafeMutablePointer<Block>
  var blockCapacity = 64
  var freeSlots: [UInt32] = []
  var memory = BlockMemory()

  /// The two blocks that are being appended to.
  var durableTail: BlockTail
  var transientTail: BlockTail

  /// Blocks that were closed since the last batch was sealed, in the log's order.
  var closedBlocks: [UInt32] = []
  /// Blocks of the batch that is being written.
  var committingBlocks: [UInt32] = []
  /// Blocks in memory, oldest first, that are on disk as well; indices may be stale.
  var resident = Ring<UInt32>()
  /// So many were left when the stale ones were last dropped.
  var residentCount = 0
  /// Closed blocks of the log, and of transient messages, oldest first; they may be stale.
  var logOrder = BlockOrder()
  var transientOrder = BlockOrder()

  /// Bytes of blocks of the log and of lanes that are in memory.
  var cachedBytes = 0
  /// Bytes of blocks that are being read back.
  var loadingBytes = 0
  /// Blocks that are to be read back when others have been.
  var waitingLoads = Ring<UInt32>()
  /// Blocks that could not be read the last time; they may be other blocks by now.
  var failedLoads: [UInt32] = []
  /// How often blocks could not be read that are tried again.
  var failedReads: [UInt32: Int] = [:]
  /// What the operator was told of them.
  var toldReads: Set<String> = []
  /// What is wrong with blocks that are damaged, and are not read again.
  var damage: [UInt32: String] = [:]
  /// What pages of partitions are read from.
  var pages: [UInt32: PageSource] = [:]
  /// Bytes of blocks of transient messages.
  var transientBytes = 0
  /// Where the next block of transient messages begins; counts up by their capacities.
  private(set) var transientStart = 0

  /// Everything before is durable (or written, as the settings say).
  public internal(set) var durablePosition: Int
  /// Damage of the log before this position can be told from a write that was not finished: a batch
  /// behind it that is durable says that it was. A batch is proven by the next one that has such a record,
  /// so that the last is not.
  package internal(set) var provenPosition = 0
  /// Batch records that are not durable yet: where each ends, and what it says was durable before.
  var claims = Ring<(end: Int, position: Int)>()
  /// Where writes are not synced: everything before was, at a start or an orderly stop.
  var syncedPosition = 0
  /// Everything before was handed to the commit thread.
  var sealedPosition: Int
  public internal(set) var isCommitting = false
  /// A batch that could not be begun, and why; it goes first when it is tried again.
  var postponed: (batch: CommitBatch, reason: String)?
  private(set) var inFlight: CommitBatch?
  /// Why no segment could be made when a batch was last tried; until one is durable.
  public internal(set) var stuckReason: String?
  var commitBackoff = Backoff()
  /// What is appended belongs to a group.
  public internal(set) var isInGroup = false
  /// Nothing more is appended but the end.
  var isClosing = false
  /// Set when a commit failed; nothing is accepted then.
  public internal(set) var failure: String?
  /// That it failed is being noted beside the log: what the log was to be told of before waits.
  public internal(set) var isMarkingFailure = false
  /// The log failed in the last life, so that it does not know what was delivered.
  public internal(set) var isAfterFailure = false
  /// Once the log is durable up to there, it knows.
  var failureToldAt: Int?

  /// Problems since the last `takeProblems`, not yet reported to the operator.
  var problems = ProblemList()

  var segments: SegmentLiveness
  var pendingCheckpoint: PendingCheckpoint?
  /// The position of the last checkpoint that was stored; the log is synced up to there.
  var checkpointedPosition = 0
  /// After a checkpoint failed, the next is not tried before this monotonic millisecond.
  var nextCheckpointAt: Int64 = 0
  var checkpointNumber = 0
  /// Where the log was when the last checkpoint was begun, and its bytes.
  var lastCheckpointBegin = 0
  var lastCheckpointBytes = 0
  var laneFiles = LaneFiles()
  var pendingSpill: PendingSpill?
  /// The broker selects messages for a round, or takes one that is over.
  var isInRound = false
  /// What stands before this and is still in the log, or in memory, stays there: it is of queues with a
  /// damaged record.
  var spillFloor = SpillCutoff(log: 0, memory: 0)
  /// Bytes of blocks of transient messages before the floor.
  var stayingBytes = 0
  /// No round is begun before this monotonic millisecond.
  var nextSpillAt: Int64 = 0
  /// Holes are made into lane files from this monotonic millisecond on; nil while none are to be made.
  var nextHolesAt: Int64?
  /// What the file system did not take back, for the next time that holes are made.
  var refusedReturns = RefusedReturns()
  /// No lane files are merged before this monotonic millisecond.
  var nextMergeAt: Int64 = 0
  /// The free space is looked at from this monotonic millisecond on.
  var nextSpaceLookAt: Int64 = 0
  /// The last round failed.
  var isSpillFailing = false
  public internal(set) var statistics = JournalStatistics()

  private(set) var forgottenBlock: UInt32?

  /// The block that recovery is filling.
  var replayBlock: UInt32?

  /// A journal that must be replayed; its oldest segment has the index `firstSegment`.
  init(
    settings: Settings, environment: Environment, files: SegmentFiles, firstSegment: Int,
    lanes: any LaneRecords, wake: @escaping @Sendable () -> Void
  ) throws(SystemError) {
    self.settings = settings
    self.files = files
    blocks = .allocate(capacity: blockCapacity)
    blocks.initialize(repeating: Block(), count: blockCapacity)
    freeSlots = Array((0..<UInt32(blockCapacity)).reversed())
    durableTail = BlockTail()
    transientTail = BlockTail()
    durablePosition = .max
    sealedPosition = 0
    segments = SegmentLiveness(segmentBytes: settings.segmentBytes, first: firstSegment)
    committer = Committer(
      worker: try environment.worker("commit"), files: files, isSynced: settings.isSynced,
      wake: wake)
    background = Background(
      worker: try environment.worker("background"), files: files, settings: settings, lanes: lanes,
      watch: environment.watch, wake: wake)
    reader = BlockReader(worker: try environment.worker("reader"), files: files, wake: wake)
    background.refill(now: 0)
  }

  deinit {
    for index in 0..<blockCapacity {
      if let base = blocks[index].base { memory.free(base, blocks[index].capacity) }
    }
    blocks.deallocate()
    memory.end()
  }

  /// Problems that stop nothing and were not yet reported to the operator; each is returned once.
  public func takeProblems() -> [String] { problems.take() }

  func submit(_ batch: CommitBatch) {
    isCommitting = true
    inFlight = batch
    committer.submit(batch)
  }

  // MARK: Appending

  /// Appends a record to the log and returns where its payload goes: `payloadSize` bytes, to be
  /// written before control returns to the loop.
  @inline(__always)
  public func append(
    kind: UInt8, flags: UInt8 = 0, count: UInt16 = 0, word: UInt32 = 0, payloadSize: Int
  ) -> (location: RecordLocation, payload: UnsafeMutableRawPointer) {
    let size = Record.headerSize &+ payloadSize
    let padded = Record.padded(size)
    if padded > durableTail.room { openDurableBlock(padded) }
    return durableTail.append(
      size: size, padded: padded, kind: kind, flags: flags, count: count, word: word)
  }

  /// The same for a record that needs not survive.
  @inline(__always)
  public func appendTransient(
    kind: UInt8, flags: UInt8 = 0, count: UInt16 = 0, word: UInt32 = 0, payloadSize: Int
  ) -> (location: RecordLocation, payload: UnsafeMutableRawPointer) {
    let size = Record.headerSize &+ payloadSize
    let padded = Record.padded(size)
    if padded > transientTail.room { openTransientBlock(padded) }
    return transientTail.append(
      size: size, padded: padded, kind: kind, flags: flags, count: count, word: word)
  }

  /// Of the log, random; the same as long as it is the same journal.
  public var identity: UInt64 { files.identity }

  /// The end of what was appended; durable once `durablePosition` has reached it.
  public var endPosition: Int { durableTail.position }

  // MARK: References

  /// Counts `count` more entries that refer to the block.
  @inline(__always)
  public func retain(_ block: UInt32, count: Int = 1) {
    blocks[Int(block)].references &+= count
  }

  /// One entry less refers to the block; with the last one its memory and its place in the log are
  /// given up.
  @inline(__always)
  public func release(_ block: UInt32, count: Int = 1) {
    blocks[Int(block)].references &-= count
    if blocks[Int(block)].references == 0 { drained(block) }
  }

  /// A block without bytes, for the entries of deleted queues: clients still have to acknowledge
  /// them, but nobody reads them again, and their real blocks need not stay for that.
  public var forgotten: UInt32 {
    if let forgottenBlock { return forgottenBlock }
    let index = takeSlot()
    // It stays, however many of its messages go.
    blocks[Int(index)].references = 1
    forgottenBlock = index
    return index
  }

  /// The record's first byte, valid until the turn's end; nil while its block is not in memory.
  @inline(__always)
  public func pointer(_ location: RecordLocation) -> UnsafeRawPointer? {
    blocks[Int(location.block)].base.map { UnsafeRawPointer($0 + Int(location.offset)) }
  }

  @inline(never)
  private func drained(_ index: UInt32) {
    let block = blocks[Int(index)]
    invariant(block.references == 0, "a block was released more often than retained")
    if block.isOpen {
      if !block.isInLog { transientTailDrained() }
    } else if !block.isPending || Sabotage.is(.freesCommittingBlock) {
      free(index)
    }
  }

  /// The open transient block is filled anew, unless it is one that a large message asked for, or
  /// somebody still reads it.
  private func transientTailDrained() {
    guard transientTail.capacity > BlockMemory.rewoundBytesMax || memory.isLent(transientTail.base)
    else {
      return transientTail.rewind()
    }
    free(transientTail.block)
    transientTail = BlockTail()
  }

  // MARK: Blocks

  /// Appends a pad so that the next record begins in a new block of at least `size` bytes.
  @inline(never)
  private func openDurableBlock(_ size: Int) {
    closeDurableBlock()
    let start = durableTail.position
    let rest = settings.segmentBytes - start % settings.segmentBytes
    let usual = min(BlockMemory.usualBytes, rest)
    let isLarge = size > BlockMemory.usualBytes / 8
    let capacity: Int
    if isLarge {
      capacity = BlockMemory.padded(size)
    } else if size <= usual {
      capacity = usual
    } else {
      // The segment's rest is too small: it becomes a pad of its own, and we start again behind it.
      openBlock(&durableTail, .log, start: start, capacity: usual)
      return openDurableBlock(size)
    }
    openBlock(&durableTail, .log, start: start, capacity: capacity)
  }

  /// Fills the open block up to a multiple of 4096 and lets go of it.
  func closeDurableBlock() {
    guard let base = durableTail.base else { return }
    let index = durableTail.block
    let end =
      (durableTail.used + BlockMemory.pageBytes - 1) & ~(BlockMemory.pageBytes - 1)
    let target = durableTail.used == 0 ? durableTail.capacity : min(end, durableTail.capacity)
    if target > durableTail.used {
      Record.writePad(base + durableTail.used, size: target - durableTail.used)
    }
    durableTail.used = target
    let opened = blocks[Int(index)]
    blocks[Int(index)].used = target
    blocks[Int(index)].isOpen = false
    blocks[Int(index)].isPending = true
    closedBlocks.append(index)
    logOrder.append(OrderedBlock(block: index, start: opened.start), blocks, .log)
    durableTail = BlockTail(position: opened.start + target)
  }

  @inline(never)
  private func openTransientBlock(_ size: Int) {
    let isLarge = size > BlockMemory.usualBytes / 8
    openTransientBlock(capacity: isLarge ? BlockMemory.padded(size) : BlockMemory.usualBytes)
  }

  /// Opens a block for transient messages, in this memory if there is any.
  func openTransientBlock(capacity: Int, in base: UnsafeMutableRawPointer? = nil) {
    if transientTail.base != nil {
      let index = transientTail.block
      blocks[Int(index)].used = transientTail.used
      blocks[Int(index)].isOpen = false
      transientOrder.append(
        OrderedBlock(block: index, start: blocks[Int(index)].start), blocks, .memory)
      if blocks[Int(index)].references == 0 { free(index) }
    }
    openBlock(&transientTail, .memory, start: transientStart, capacity: capacity, in: base)
    transientStart += capacity
    transientBytes += capacity
  }

  func openBlock(
    _ tail: inout BlockTail, _ home: Block.Home, start: Int, capacity: Int,
    in memory: UnsafeMutableRawPointer? = nil
  ) {
    let index = takeSlot()
    let base = memory ?? self.memory.allocate(capacity)
    var block = Block(home: home, start: start, capacity: capacity)
    block.base = base
    block.isOpen = true
    block.epoch = UInt32(truncatingIfNeeded: epoch)
    blocks[Int(index)] = block
    tail = BlockTail(base: base, used: 0, capacity: capacity, block: index, start: start)
    if home == .log {
      cachedBytes += capacity
      segments.opened(block)
    }
  }

  /// Makes the block that holds the log's end, with what its last page already says.
  func resumeTail(at end: Int) throws(SystemError) {
    let start = end & ~(BlockMemory.pageBytes - 1)
    guard end > start else {
      durableTail = BlockTail(position: end)
      return
    }
    let rest = settings.segmentBytes - start % settings.segmentBytes
    openBlock(&durableTail, .log, start: start, capacity: min(BlockMemory.usualBytes, rest))
    try files.read(
      position: start,
      into: UnsafeMutableRawBufferPointer(start: durableTail.base, count: end - start))
    durableTail.used = end - start
    blocks[Int(durableTail.block)].checkedFrom = UInt32(end - start)
  }

  /// What is appended from now on belongs to a new life of the log.
  func begin(epoch: UInt64) {
    self.epoch = epoch
    guard durableTail.base != nil else { return }
    blocks[Int(durableTail.block)].epoch = UInt32(truncatingIfNeeded: epoch)
  }

  func takeSlot() -> UInt32 {
    if let index = freeSlots.popLast() { return index }
    let capacity = blockCapacity * 2
    let grown = UnsafeMutablePointer<Block>.allocate(capacity: capacity)
    grown.moveInitialize(from: blocks, count: blockCapacity)
    (grown + blockCapacity).initialize(repeating: Block(), count: blockCapacity)
    blocks.deallocate()
    blocks = grown
    freeSlots = Array((UInt32(blockCapacity)..<UInt32(capacity)).reversed())
    blockCapacity = capacity
    return freeSlots.removeLast()
  }

  /// Gives up a block that nobody refers to.
  func free(_ index: UInt32) {
    let block = blocks[Int(index)]
    if let base = block.base {
      memory.free(base, block.capacity)
      if block.home != .memory { cachedBytes -= block.capacity }
    }
    switch block.home {
    case .log: segments.freed(block)
    case .memory:
      transientBytes -= block.capacity
      if block.start < spillFloor.memory { stayingBytes -= block.capacity }
    case .lane: laneFiles.died(block.file, at: block.start)
    case .page: pages[index] = nil
    case .nowhere: invariantFailed("a block was freed twice")
    }
    blocks[Int(index)].base = nil
    blocks[Int(index)].home = .nowhere
    // The reader still has the slot's number.
    if !block.isLoading { release(slot: index) }
  }

  func release(slot index: UInt32) {
    if blocks[Int(index)].isDamaged { damage[index] = nil }
    if !failedReads.isEmpty { forgetFailures(of: index) }
    blocks[Int(index)] = Block()
    freeSlots.append(index)
  }
}
