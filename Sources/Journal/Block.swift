import Glibc

/// A piece of the log, or of the transient messages, as it stands in memory: records one behind the
/// other, from a start that is a multiple of 4096.
struct Block {
  /// nil while the bytes are only on disk, or when the slot is free.
  var base: UnsafeMutableRawPointer?
  /// The log position of the first byte; -1 for a block of transient messages.
  var start = -1
  /// Bytes that hold records; behind the block's closing a multiple of 4096.
  var used = 0
  /// Bytes allocated, or to be allocated, at `base`.
  var capacity = 0
  /// Queue entries whose message is in this block.
  var references = 0
  /// Closed, and in the list of blocks that wait for their commit to end.
  var isPending = false
  /// Records are still being appended.
  var isOpen = false

  var isDurable: Bool { start >= 0 }
  var end: Int { start + used }
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
    let memory = mmap(
      nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory, memory != MAP_FAILED else {
      fatalError("out of memory: \(bytes) bytes for messages were refused by the system")
    }
    return memory
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
}
