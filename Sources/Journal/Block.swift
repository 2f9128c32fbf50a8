import Base
import Glibc
import IO

/// A piece of the log, of a lane file, or of the transient messages, as it stands in memory: records
/// one behind the other. A block is 48 bytes while its messages are only on disk.
struct Block {
  /// Where the bytes are when they are not in memory.
  enum Home: UInt8 {
    /// The slot is not in use.
    case nowhere
    case log
    /// In memory alone: transient messages.
    case memory
    case lane
    /// In a segment of a partition, in another form: see `PartitionPage`.
    case page
  }

  /// nil while the bytes are only on disk, or when the slot is free.
  var base: UnsafeMutableRawPointer?
  /// In the log: the position of the first byte, a multiple of 4096 if the block was opened here. In
  /// memory: counts up with every block. In a lane file: the offset.
  var start = 0
  private var usedBytes: UInt32 = 0
  private var capacityBytes: UInt32 = 0
  private var referenceCount: Int32 = 0
  /// The number of the lane file.
  var file: UInt32 = 0
  /// The lower half of the epoch in which the log's records were written.
  var epoch: UInt32 = 0
  /// Offset of the first record of that epoch.
  var checkedFrom: UInt32 = 0
  var home: Home
  /// Closed, and in the list of blocks that wait for their commit to end.
  var isPending = false
  /// Records are still being appended.
  var isOpen = false
  /// The reader was asked for the bytes.
  var isLoading = false
  /// A round of spilling reads the bytes from memory.
  var isKept = false
  /// The bytes were read, and are not what was written.
  var isDamaged = false
  /// The bytes could not be read the last time.
  var hasFailed = false

  init() {
    home = .nowhere
  }

  init(home: Home, start: Int, used: Int = 0, capacity: Int) {
    self.home = home
    self.start = start
    usedBytes = UInt32(used)
    capacityBytes = UInt32(capacity)
  }

  /// Bytes that hold records.
  var used: Int {
    get { Int(usedBytes) }
    set { usedBytes = UInt32(newValue) }
  }

  /// Bytes allocated, or to be allocated, at `base`.
  var capacity: Int {
    get { Int(capacityBytes) }
    set { capacityBytes = UInt32(newValue) }
  }

  /// Queue entries whose message is in this block, and messages of lanes that have no entry.
  @inline(__always) var references: Int {
    get { Int(referenceCount) }
    set { referenceCount = Int32(truncatingIfNeeded: newValue) }
  }

  var isInLog: Bool { home == .log }
  var end: Int { start + used }
  /// Its bytes can be read again when they are dropped from memory.
  var isDroppable: Bool {
    base != nil && home != .memory && !isOpen && !isPending && !isKept
  }
}

/// Memory for blocks, straight from the kernel, with a few blocks of the usual size kept for reuse:
/// the most recently freed is given out first, since the caches still have it. Memory that is lent
/// stays as it is when its block is given up, until the last loan has ended. Large memory goes back to
/// the kernel in slices, since that takes it time.
package struct BlockMemory: ~Copyable {
  package static let usualBytes = 256 << 10
  static let pageBytes = 4096
  static let spareCountMax = 16
  /// A larger block is not kept for other messages than those that it was made for.
  static let rewoundBytesMax = 4 * usualBytes

  /// So much goes back to the kernel at once.
  static let unmappedBytesMax = 8 << 20

  private var spares: [UnsafeMutableRawPointer] = []
  /// Bytes given out, and those that are on their way back to the kernel.
  private(set) var bytesInUse = 0
  /// Bytes whose block is gone, and that are kept for loans alone.
  private(set) var lentBytes = 0
  private var loans: [UnsafeRawPointer: Loans] = [:]
  /// What goes back to the kernel, the next last.
  private var leaving: [UnsafeMutableRawBufferPointer] = []

  /// Who uses a block's memory besides the block.
  private struct Loans {
    var count: Int
    /// Of the block, once it is gone.
    var bytes: Int?
  }

  mutating func allocate(_ bytes: Int) -> UnsafeMutableRawPointer {
    bytesInUse += bytes
    if bytes == Self.usualBytes, let spare = spares.popLast() { return spare }
    return Self.map(bytes)
  }

  /// Memory that somebody else has mapped is a block's now.
  mutating func adopt(_ bytes: Int) {
    bytesInUse += bytes
  }

  mutating func free(_ memory: UnsafeMutableRawPointer, _ bytes: Int) {
    if !loans.isEmpty, loans[memory] != nil, !Sabotage.is(.reusesLentMemory) {
      loans[memory]?.bytes = bytes
      lentBytes += bytes
      bytesInUse -= bytes
    } else if bytes == Self.usualBytes, spares.count < Self.spareCountMax {
      bytesInUse -= bytes
      spares.append(memory)
    } else if bytes <= Self.unmappedBytesMax {
      bytesInUse -= bytes
      munmap(memory, bytes)
    } else {
      leaving.append(UnsafeMutableRawBufferPointer(start: memory, count: bytes))
    }
  }

  /// Something goes back to the kernel, and more calls of `giveBack` are needed.
  var isGivingBack: Bool { !leaving.isEmpty }

  /// Memory that no block has had goes back to the kernel, as large memory of blocks does: there may be much
  /// of it at once.
  mutating func giveUp(_ memory: UnsafeMutableRawPointer, _ bytes: Int) {
    bytesInUse += bytes
    leaving.append(UnsafeMutableRawBufferPointer(start: memory, count: bytes))
  }

  /// Gives a part of what is leaving back to the kernel.
  mutating func giveBack() {
    var left = Self.unmappedBytesMax
    while left > 0, let last = leaving.popLast() {
      let size = min(last.count, left)
      let rest = last.count - size
      munmap(last.baseAddress! + rest, size)
      bytesInUse -= size
      left -= size
      if rest > 0 { leaving.append(UnsafeMutableRawBufferPointer(rebasing: last[..<rest])) }
    }
  }

  /// Gives the memory that is kept for reuse back to the kernel.
  mutating func trim() {
    for spare in spares { munmap(spare, Self.usualBytes) }
    spares.removeAll()
  }

  /// Gives everything back that no block has.
  mutating func end() {
    trim()
    while isGivingBack { giveBack() }
    for (memory, loan) in loans {
      if let bytes = loan.bytes { munmap(UnsafeMutableRawPointer(mutating: memory), bytes) }
    }
    loans = [:]
  }

  // MARK: Loans

  func isLent(_ memory: UnsafeMutableRawPointer?) -> Bool {
    guard !loans.isEmpty, let memory else { return false }
    return loans[memory] != nil && !Sabotage.is(.reusesLentMemory)
  }

  mutating func lend(_ memory: UnsafeMutableRawPointer) {
    loans[memory, default: Loans(count: 0)].count += 1
  }

  mutating func endLoan(_ memory: UnsafeRawPointer) {
    guard var loan = loans[memory] else { invariantFailed("a loan ended twice") }
    loan.count -= 1
    loans[memory] = loan.count > 0 ? loan : nil
    guard loan.count == 0, let bytes = loan.bytes else { return }
    lentBytes -= bytes
    bytesInUse += bytes
    free(UnsafeMutableRawPointer(mutating: memory), bytes)
  }

  static func map(_ bytes: Int) -> UnsafeMutableRawPointer {
    let memory = mmap(
      nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory, memory != MAP_FAILED else {
      fatalError("out of memory: \(bytes) bytes for messages were refused by the system")
    }
    return memory
  }

  /// Makes mapped memory larger or smaller. It may move, with its pages instead of their bytes.
  static func resize(
    _ memory: UnsafeMutableRawPointer, from old: Int, to new: Int
  ) -> UnsafeMutableRawPointer {
    guard let moved = MappedMemory.resize(memory, from: old, to: new) else {
      fatalError("out of memory: \(new) bytes for a message were refused by the system")
    }
    return moved
  }

  static func padded(_ bytes: Int) -> Int { (bytes + pageBytes - 1) & ~(pageBytes - 1) }
}
