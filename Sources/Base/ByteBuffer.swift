import Glibc

/// A growing buffer of bytes that are appended at the end and consumed from the front: the output of
/// a connection, the body that is being assembled. Integers are written big-endian, as AMQP and
/// Kafka have them.
///
/// Unsafe inside: every write goes through `reserve`, which makes the room it returns. It can go to
/// another thread, since it cannot be copied and is the only owner of its memory.
public struct ByteBuffer: ~Copyable, @unchecked Sendable {
  @usableFromInline var base: UnsafeMutableRawPointer?
  /// Bytes allocated at `base`.
  public private(set) var capacity: Int
  /// The first byte that was not consumed.
  @usableFromInline var head = 0
  /// The end of what was written; `head <= tail <= capacity`.
  @usableFromInline var tail = 0

  public init(capacity: Int = 0) {
    self.capacity = capacity
    base = capacity > 0 ? Self.allocate(capacity, malloc(capacity)) : nil
  }

  deinit {
    free(base)
  }

  @inlinable public var count: Int { tail &- head }
  @inlinable public var isEmpty: Bool { tail == head }

  /// The bytes that were written and not consumed; valid until the next mutating call.
  @inlinable public var readable: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: base.map { $0 + head }, count: count)
  }

  /// Room for `size` more bytes, at least one, to be written before `advance(size)`.
  @inlinable
  @inline(__always)
  public mutating func reserve(_ size: Int) -> UnsafeMutableRawPointer {
    if capacity &- tail < size { grow(size) }
    return base.unsafelyUnwrapped + tail
  }

  /// Declares `size` bytes behind the end, which `reserve` returned, as written.
  @inlinable
  @inline(__always)
  public mutating func advance(_ size: Int) {
    tail &+= size
  }

  @inlinable
  public mutating func append(_ value: UInt8) {
    reserve(1).storeBytes(of: value, as: UInt8.self)
    tail &+= 1
  }

  @inlinable
  public mutating func append(_ value: UInt16) {
    reserve(2).storeBytes(of: value.bigEndian, as: UInt16.self)
    tail &+= 2
  }

  @inlinable
  public mutating func append(_ value: UInt32) {
    reserve(4).storeBytes(of: value.bigEndian, as: UInt32.self)
    tail &+= 4
  }

  @inlinable
  public mutating func append(_ value: UInt64) {
    reserve(8).storeBytes(of: value.bigEndian, as: UInt64.self)
    tail &+= 8
  }

  @inlinable
  public mutating func append(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count > 0 else { return }
    reserve(bytes.count).copyMemory(
      from: bytes.baseAddress.unsafelyUnwrapped, byteCount: bytes.count)
    tail &+= bytes.count
  }

  @inlinable
  public mutating func append(_ span: RawSpan) {
    guard span.byteCount > 0 else { return }
    let room = reserve(span.byteCount)
    span.withUnsafeBytes { source in
      room.copyMemory(from: source.baseAddress.unsafelyUnwrapped, byteCount: source.count)
    }
    tail &+= span.byteCount
  }

  public mutating func append(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { append($0) }
  }

  /// A one-byte length and the bytes: AMQP's short string.
  public mutating func append(_ name: Name) {
    append(UInt8(name.bytes.count))
    append(name.bytes)
  }

  /// A four-byte length and the bytes: AMQP's long string.
  public mutating func appendLong(_ bytes: [UInt8]) {
    append(UInt32(bytes.count))
    append(bytes)
  }

  /// Overwrites four bytes that were appended `distance` bytes before the end.
  public mutating func patch(_ value: UInt32, fromEnd distance: Int) {
    invariant(distance >= 4 && distance <= count, "patch outside of the written bytes")
    (base.unsafelyUnwrapped + tail - distance).storeBytes(of: value.bigEndian, as: UInt32.self)
  }

  /// Forgets the first `size` bytes.
  public mutating func consume(_ size: Int) {
    invariant(size >= 0 && size <= count, "consumed more than was written")
    head &+= size
    if head == tail { removeAll() }
  }

  /// Forgets the last `size` bytes.
  public mutating func removeLast(_ size: Int) {
    invariant(size >= 0 && size <= count, "removed more than was written")
    tail &-= size
  }

  @inlinable
  public mutating func removeAll() {
    head = 0
    tail = 0
  }

  /// Gives the memory back when nothing is in it.
  public mutating func shrink(to size: Int) {
    guard isEmpty, capacity > size else { return }
    free(base)
    base = size > 0 ? Self.allocate(size, malloc(size)) : nil
    capacity = size
    removeAll()
  }

  /// Makes room for exactly `size` bytes in all, those among them that are there.
  public mutating func grow(toFit size: Int) {
    guard size > capacity else { return }
    let used = count
    if head == 0 {
      // Large memory is moved with its page table instead of being copied.
      base = Self.allocate(size, realloc(base, size))
    } else {
      let fresh = Self.allocate(size, malloc(size))
      fresh.copyMemory(from: base.unsafelyUnwrapped + head, byteCount: used)
      free(base)
      base = fresh
    }
    capacity = size
    head = 0
    tail = used
  }

  @usableFromInline
  @inline(never)
  mutating func grow(_ size: Int) {
    let used = count
    guard head >= used, head > 0, capacity &- used >= size else {
      return grow(toFit: max(used + size, capacity * 2, 256))
    }
    base.unsafelyUnwrapped.copyMemory(from: base.unsafelyUnwrapped + head, byteCount: used)
    head = 0
    tail = used
  }

  private static func allocate(
    _ size: Int, _ memory: UnsafeMutableRawPointer?
  ) -> UnsafeMutableRawPointer {
    guard let memory else { invariantFailed("no memory for \(size) bytes") }
    return memory
  }
}
