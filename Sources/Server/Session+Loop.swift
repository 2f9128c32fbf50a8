import AMQP
import Base
import Broker

/// What the loop asks of a session.
extension Session: Conversation {
  var name: String { peerName }

  var phase: ConversationPhase {
    switch state {
    case .awaitingHeader: .unheard
    case .awaitingStartOK, .awaitingTuneOK, .awaitingOpen: .opening
    case .open: .open
    case .closing: .closing
    case .closed: .closed(isByClient: isClosedByClient)
    }
  }

  func contentStalled(seconds: Int64) { fail(.contentStalled(seconds: seconds)) }

  var unsentBytesMax: Int { settings.answersMax }

  var isBodyNext: Bool { owed.ownBefore == 0 }

  var keepsOutput: Bool { out.isEmpty && out.capacity > 0 }

  func shrinkOutput() {
    if out.isEmpty { out.shrink(to: 0) }
  }

  var hasRoom: Bool { unsentBytes < outputRoom / 2 }

  func roomMade() -> Bool {
    guard let peer, !peer.hasRoom else { return false }
    peer.roomMade()
    return true
  }

  func roomFilled() { peer?.roomFilled() }

  var heartbeatMilliseconds: Int64 { Int64(heartbeat) * 1000 }

  func end() {
    // What it can no longer read is not delivered to it: without acknowledgements that would be lost.
    roomFilled()
    release()
    state = .closed
    giveUpOutput()
  }
}

/// For whoever looks on.
extension Connection {
  /// What the session has said and the transport has not taken, without the first `skipped` bytes.
  package func unsent(from skipped: Int) -> [UInt8] {
    guard let session = conversation as? Session else { return [] }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(unsentCount - skipped)
    session.owed.render(session.out.readable, from: skipped, into: &bytes)
    return bytes
  }

  /// What the client asked for last goes on between turns.
  package var isWorking: Bool { (conversation as? Session)?.peer?.isWorking == true }

  /// No more is delivered, or no more requests are taken, before some was sent.
  package var isOutputFull: Bool {
    guard let session = conversation as? Session else { return conversation.isOutputFull }
    return session.isOutputFull || session.peer?.hasRoom == false
  }
}
