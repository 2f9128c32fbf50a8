import AMQP
import Base
import Broker
import Journal

/// A channel of a session: the broker's channel, and the content that is arriving on it.
final class SessionChannel {
  let number: UInt16
  let core: Channel
  /// We sent channel.close: everything but close-ok is discarded.
  var isClosing = false
  /// Class and method of an acknowledgement that takes effect at once; with transactions none does.
  private(set) var ackID = SessionChannel.plainAckID
  private static let plainAckID: UInt32 = 60 << 16 | 80
  var content = Content.none
  /// The body so far, when it does not arrive in one piece: of a large one only its beginning.
  private(set) var body = ByteBuffer()
  /// The body so far, when that is too large to be copied.
  private(set) var draft: RecordDraft?
  /// What the session has counted of this message.
  var counted = (held: 0, body: 0, head: 0)

  /// What of a message has arrived.
  enum Content {
    case none
    /// basic.publish; the header is next.
    case published(Publication)
    /// The header; so many bytes of body in all.
    case headed(Publication, properties: [UInt8], bodySize: Int)
  }

  /// The arguments of a basic.publish.
  struct Publication {
    /// Exchange and routing key, each with its length in front.
    let names: [UInt8]
    let isMandatory: Bool
  }

  init(_ core: Channel) {
    self.core = core
    number = core.number
  }

  func startTransactions() throws(BrokerError) {
    try core.startTransactions()
    ackID = 0
  }

  /// Bytes of the properties of a message that is arriving.
  var headBytes: Int {
    if case .headed(_, let properties, _) = content { properties.count } else { 0 }
  }

  /// What its names and properties take of memory.
  var headCapacity: Int {
    switch content {
    case .none: 0
    case .published(let publication): Self.arrayBytes + publication.names.count
    case .headed(let publication, let properties, _):
      2 * Self.arrayBytes + publication.names.count + properties.count
    }
  }

  /// What an array takes besides its elements.
  private static let arrayBytes = 40

  /// Bytes of the body that have come, and of the memory that they are in.
  var bodyCount: Int { draft?.count ?? body.count }
  var bodyCapacity: Int { body.capacity + (draft?.capacity ?? 0) }

  /// More of the body. Up to `copiedMax` bytes are in a buffer that grows no further than the body needs. What
  /// has more is put together where it stays: its beginning moves there, which is a small copy, so that only
  /// who has sent something has memory of the kernel's.
  func append(_ payload: RawSpan, bodySize: Int, copiedMax: Int) {
    let needed = bodyCount + payload.byteCount
    guard needed > copiedMax, case .headed(let publication, let properties, _) = content else {
      if needed > body.capacity {
        body.grow(toFit: max(needed, min(2 * body.capacity, bodySize, copiedMax)))
      }
      return body.append(payload)
    }
    if draft == nil {
      let draft = core.draft(names: publication.names.span.bytes, properties: properties.span.bytes)
      let beginning = body.readable
      if !Sabotage.is(.losesBodyBeginning) { draft.append(beginning.bytes, of: bodySize) }
      forgetBody()
      self.draft = draft
    }
    draft?.append(payload, of: bodySize)
  }

  /// Nothing of a body is kept any more.
  func forgetBody() {
    body.removeAll()
    body.shrink(to: 0)
    draft = nil
  }
}
