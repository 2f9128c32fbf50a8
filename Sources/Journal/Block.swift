import Glibc

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
/// the most recently freed is given out first, since the caches still have it.
struct BlockMemory: ~Copyable {
  static let usualBytes = 256 << 10
  static let pageBytes = 4096
  static let spareCountMax = 16
  /// A larger block is not kept for other messages than those that it was made for.
  static let rewoundBytesMax = 4 * usualBytes

  private var spares: [UnsafeMutableRawPointer] = []
  /// Bytes given out.
  private(set) var bytesInUse = 0

  mutating func allocate(_ bytes: Int) -> UnsafeMutableRawPointer {
    bytesInUse += bytes
    if bytes == Self.usualBytes, let spare = spares.popLast() { return spare }
    return Self.map(bytes)
  }

  mutating func free(_ memory: UnsafeMutableRawPointer, _ bytes: Int) {
    bytesInUse -= bytes
    if bytes == Self.usualBytes, spares.count < Self.spareCountMax {
      spares.append(memory)
    } else {
      munmap(memory, bytes)
    }
  }

  /// Gives the memory that is kept for reuse back to the kernel.
  mutating func trim() {
    for spare in spares { munmap(spare, Self.usualBytes) }
    spares.removeAll()
  }

  static func map(_ bytes: Int) -> UnsafeMutableRawPointer {
    let memory = mmap(
      nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory, memory != MAP_FAILED else {
      fatalError("out of memory: \(bytes) bytes for messages were refused by the system")
    }
    return memory
  }

  static func padded(_ bytes: Int) -> Int { (bytes + pageBytes - 1) & ~(pageBytes - 1) }
}
