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
}
