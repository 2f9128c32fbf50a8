import Base
import Journal

/// What a client has asked for on a channel since its last commit or rollback, and is to happen as one or not at
/// all: messages, and answers to deliveries.
///
/// Small messages stand one behind the other in chunks of memory; large ones are in the drafts in which they
/// came. A delivery that is answered stays where it is, unacknowledged, and is only noted here: so rolling back
/// is forgetting, and whoever looks at what is outstanding needs to know of nothing.
final class Transaction {
  struct Message {
    /// The chunk and the place in it of names, properties and, without a draft, the body.
    let chunk: Int
    let offset: Int
    let namesSize: Int
    let propertiesSize: Int
    let bodySize: Int
    let isPersistent: Bool
    let isMandatory: Bool
    let hasHeaders: Bool
    let draft: RecordDraft?
  }

  /// A message's bytes, valid as long as the transaction has it.
  struct Content {
    let names: UnsafeRawBufferPointer
    let properties: UnsafeRawBufferPointer
    let body: UnsafeRawBufferPointer
  }

  /// What becomes of a delivery.
  struct Answer {
    enum Kind {
      case acknowledge
      case giveBack
      case discard
    }

    let tag: UInt64
    let kind: Kind
  }

  private final class Chunk {
    var bytes: ByteBuffer

    init(capacity: Int) {
      bytes = ByteBuffer(capacity: capacity)
    }
  }

  // Unsafe but sound: the channel, which has this, forgets all before it gives up its peer.
  private unowned(unsafe) let peer: Peer
  private let limits: BrokerLimits
  private(set) var messages: [Message] = []
  private(set) var answers: [Answer] = []
  private var answered: Set<UInt64> = []
  /// A delivery that was answered when it had gone back to its queue: the commit fails.
  private(set) var lostTag: UInt64?
  private var chunks: [Chunk] = []
  /// Bytes of all messages, and of the largest.
  private var bytes = 0
  private var largest = 0
  /// What the account of memory has of it.
  private var counted = 0

  /// The first chunk, which stays from one transaction to the next, and each behind it, unless one message
  /// needs more.
  private static let firstChunkBytes = 16 << 10
  private static let chunkBytes = 64 << 10
  /// About what is noted of a message or an answer.
  private static let operationBytes = 80
  /// So many places are kept for the next transaction.
  private static let placesKept = 256

  init(_ channel: Channel) {
    peer = channel.peer
    limits = channel.broker.limits
  }

  var isEmpty: Bool { messages.isEmpty && answers.isEmpty }

  func answers(_ tag: UInt64) -> Bool { answered.contains(tag) }

  // MARK: Adding

  /// Adds a message that was looked at. Its body is the draft's if there is one.
  func add(
    names: RawSpan, properties: RawSpan, body: RawSpan, _ draft: RecordDraft?,
    isPersistent: Bool, isMandatory: Bool, hasHeaders: Bool
  ) throws(BrokerError) {
    try requireRoom(for: 1)
    let copied = draft == nil ? body.byteCount : 0
    let head = names.byteCount + properties.byteCount
    let size = head + body.byteCount
    guard bytes + size - max(largest, size) <= limits.transactionBytesMax else {
      throw .limitReached(.transactionBytes(max: limits.transactionBytesMax))
    }
    bytes += size
    largest = max(largest, size)
    let chunk = chunk(for: head + copied)
    let offset = chunk.bytes.count
    chunk.bytes.append(names)
    chunk.bytes.append(properties)
    if draft == nil { chunk.bytes.append(body) }
    messages.append(
      Message(
        chunk: chunks.count - 1, offset: offset, namesSize: names.byteCount,
        propertiesSize: properties.byteCount, bodySize: copied, isPersistent: isPersistent,
        isMandatory: isMandatory, hasHeaders: hasHeaders, draft: draft))
    count(Self.operationBytes + (draft?.capacity ?? 0))
  }

  /// Notes what is to become of an unacknowledged delivery.
  func add(_ answer: Answer) throws(BrokerError) {
    try requireRoom(for: 1)
    answered.insert(answer.tag)
    answers.append(answer)
    count(Self.operationBytes)
  }

  /// The delivery that is answered has gone back to its queue.
  func lose(_ tag: UInt64) { lostTag = tag }

  private func requireRoom(for more: Int) throws(BrokerError) {
    guard messages.count + answers.count + more <= limits.transactionOperationsMax else {
      throw .limitReached(.transactionOperations(max: limits.transactionOperationsMax))
    }
    try peer.broker.requireTransactionRoom()
  }

  /// The last chunk, or a new one, with room for so many bytes, so that what it has stays where it is.
  private func chunk(for size: Int) -> Chunk {
    if let last = chunks.last, last.bytes.capacity - last.bytes.count >= size { return last }
    let usual = chunks.isEmpty ? Self.firstChunkBytes : Self.chunkBytes
    let chunk = Chunk(capacity: max(usual, size))
    chunks.append(chunk)
    count(chunk.bytes.capacity)
    return chunk
  }

  private func count(_ delta: Int) {
    counted += delta
    peer.count(transaction: delta)
  }

  // MARK: Using

  func content(of message: Message) -> Content {
    let all = UnsafeRawBufferPointer(
      rebasing: chunks[message.chunk].bytes.readable[message.offset...])
    let head = message.namesSize + message.propertiesSize
    return Content(
      names: UnsafeRawBufferPointer(rebasing: all[..<message.namesSize]),
      properties: UnsafeRawBufferPointer(rebasing: all[message.namesSize..<head]),
      body: message.draft?.body
        ?? UnsafeRawBufferPointer(rebasing: all[head..<head + message.bodySize]))
  }

  /// All has happened, or is not to happen. What is small is kept for the next ones, while the channel is open.
  func forget(keeping: Bool = false) {
    messages.removeAll(keepingCapacity: keeping && messages.capacity <= Self.placesKept)
    answers.removeAll(keepingCapacity: keeping && answers.capacity <= Self.placesKept)
    answered.removeAll(keepingCapacity: keeping && answered.capacity <= Self.placesKept)
    chunks.removeLast(max(0, chunks.count - 1))
    if keeping, let first = chunks.first, first.bytes.capacity <= Self.firstChunkBytes {
      first.bytes.removeAll()
    } else {
      chunks = []
    }
    bytes = 0
    largest = 0
    lostTag = nil
    let kept = chunks.first?.bytes.capacity ?? 0
    count(kept - counted)
  }
}
