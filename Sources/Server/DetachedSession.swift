import Broker

/// A session whose bytes are carried by hand instead of by a socket, as `Reactor` carries them: for
/// the simulator.
package final class DetachedSession {
  private let session: Session

  package init(broker: Broker, name: String, frameMax: Int, outputMax: Int) {
    var settings = SessionSettings()
    settings.frameMax = frameMax
    settings.outputMax = outputMax
    session = Session(
      broker: broker, settings: settings, log: Log(level: .error), peerName: name,
      isLoopback: true)
  }

  // MARK: Bytes

  /// The session takes requests now.
  package var isTaking: Bool {
    session.pause == .none && session.state != .closed
      && session.out.count < session.settings.answersMax
  }

  /// As `Session.receive`.
  package func receive(_ bytes: UnsafeRawBufferPointer) -> Int { session.receive(bytes.bytes) }

  /// What was written and not sent.
  package var output: UnsafeRawBufferPointer { session.out.readable }

  /// The first `count` bytes of `output` are on their way. Returns whether something that waited for
  /// room may go on.
  package func sent(_ count: Int) -> Bool {
    session.isDirty = false
    session.out.consume(count)
    guard session.out.count < session.settings.outputMax / 2 else { return false }
    var mayGoOn = false
    if let peer = session.peer, !peer.hasRoom {
      peer.roomMade()
      mayGoOn = true
    }
    if session.isOutputFull {
      session.isOutputFull = false
      mayGoOn = true
    }
    return mayGoOn
  }

  // MARK: The journal and the broker

  package var isWaitingForLog: Bool {
    if case .untilDurable = session.pause { true } else { false }
  }
  package var isBlocked: Bool { session.pause == .blocked }
  package var isOutputFull: Bool { session.isOutputFull || session.peer?.hasRoom == false }

  /// The log moved.
  package func resume(durable position: Int) { _ = session.resume(durable: position) }

  package func logFailed(_ reason: String) { session.logFailed(reason) }

  /// The broker takes messages again.
  package func unblock() { _ = session.unblock() }

  // MARK: The end

  package var isClosed: Bool { session.state == .closed }

  /// The connection broke.
  package func disconnect() {
    session.release()
    session.state = .closed
    session.out.removeAll()
  }
}
