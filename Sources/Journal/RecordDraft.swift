import Base

/// A large record whose end is not there yet. It is put together in memory that becomes its block, of the log
/// or of transient messages, so that nothing is copied when it is appended, whatever its size.
///
/// The bytes of the record, in the memory from its beginning on:
///
/// ```
///   0             16 of header, written when the record is appended
///  16             the head, of a size that is known, written by who appends the record
///  bodyOffset     the body, as it comes
///  size           the tail, by who appends it: only then is it known
/// ```
///
/// The memory grows with what has come, and not with what was announced. Until the record is appended it is
/// the draft's: whoever has the draft counts `capacity`. A draft that goes before gives it back.
///
/// Unsafe inside: what is written is made room for in the call that writes it. The core thread alone uses it.
public final class RecordDraft {
  private let journal: Journal
  private let bodyOffset: Int
  private var base: UnsafeMutableRawPointer?
  /// Bytes of memory.
  public private(set) var capacity = 0
  /// Bytes of the body that have come.
  public private(set) var count = 0

  /// A record with `headSize` bytes of payload before its body.
  public init(_ journal: Journal, headSize: Int) {
    self.journal = journal
    bodyOffset = Record.headerSize + headSize
  }

  deinit {
    if let base { journal.giveUp(base, capacity) }
  }

  /// Bytes of payload before the body.
  public var headSize: Int { bodyOffset - Record.headerSize }

  /// What of the body has come; valid until the next call that changes the draft.
  public var body: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: base.map { $0 + bodyOffset }, count: count)
  }

  /// Room for the beginning of a short tail, so that the memory need not move for it. It costs nothing as long
  /// as nobody writes there.
  private static let tailRoom = BlockMemory.pageBytes

  /// More of the body, which has `total` bytes in all.
  public func append(_ bytes: RawSpan, of total: Int) {
    let needed = bodyOffset + count + bytes.byteCount
    if needed > capacity {
      let whole = bodyOffset + total + Self.tailRoom
      resize(to: BlockMemory.padded(max(needed, min(2 * capacity, whole))))
    }
    guard let base, bytes.byteCount > 0 else { return }
    bytes.withUnsafeBytes { source in
      (base + bodyOffset + count).copyMemory(
        from: source.baseAddress.unsafelyUnwrapped, byteCount: source.count)
    }
    count += bytes.byteCount
  }

  private func resize(to size: Int) {
    guard size != capacity else { return }
    base =
      base.map { BlockMemory.resize($0, from: capacity, to: size) } ?? BlockMemory.map(size)
    capacity = size
  }

  /// Gives its memory away, which is that of a block with the record and a tail of so many bytes.
  fileprivate func takeMemory(tailSize: Int) -> UnsafeMutableRawBufferPointer {
    resize(to: BlockMemory.padded(size + tailSize))
    defer { (base, capacity, count) = (nil, 0, 0) }
    return UnsafeMutableRawBufferPointer(start: base, count: capacity)
  }

  /// Bytes of the record without a tail.
  fileprivate var size: Int { bodyOffset + count }
}

extension Journal {
  /// Appends the draft as a record with `tailSize` bytes behind its body, to the log if it must survive, else
  /// to the transient messages. Its memory is a block from now on. Returns where the payload begins: head
  /// and tail are to be written before control returns to the loop. The draft is empty then.
  public func append(
    _ draft: RecordDraft, isDurable: Bool, kind: UInt8, word: UInt32, tailSize: Int
  ) -> (location: RecordLocation, payload: UnsafeMutableRawPointer) {
    let size = draft.size + tailSize
    let padded = Record.padded(size)
    let block = draft.takeMemory(tailSize: tailSize)
    memory.adopt(block.count)
    statistics.draftsAppended += 1
    guard isDurable else {
      openTransientBlock(capacity: block.count, in: block.baseAddress)
      return transientTail.append(
        size: size, padded: padded, kind: kind, flags: 0, count: 0, word: word)
    }
    closeDurableBlock()
    let start = durableTail.position
    openBlock(
      &durableTail, .log, start: start, capacity: block.count, in: block.baseAddress)
    return durableTail.append(
      size: size, padded: padded, kind: kind, flags: 0, count: 0, word: word)
  }

  /// The memory of a draft that comes to nothing.
  fileprivate func giveUp(_ base: UnsafeMutableRawPointer, _ bytes: Int) {
    memory.giveUp(base, bytes)
  }
}
