import AMQP
import Base
import Broker

/// A channel of a session: the broker's channel, and the content that is arriving on it.
final class SessionChannel {
  let number: UInt16
  let core: Channel
  /// We sent channel.close: everything but close-ok is discarded.
  var isClosing = false
  var content = Content.none
  /// The body so far, when it does not arrive in one piece.
  var body = ByteBuffer()
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

  /// Bytes of the properties of a message that is arriving.
  var headBytes: Int {
    if case .headed(_, let properties, _) = content { properties.count } else { 0 }
  }

  /// The body's bytes, in a buffer that grows no further than the body needs.
  func append(_ payload: RawSpan, bodySize: Int) {
    let needed = body.count + payload.byteCount
    if needed > body.capacity {
      body.grow(toFit: max(needed, min(2 * body.capacity, bodySize)))
    }
    body.append(payload)
  }
}
