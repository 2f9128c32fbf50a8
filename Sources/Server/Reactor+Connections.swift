import Base
import Broker
import Glibc
import IO

extension Reactor {
  private static let receiveBufferBytes: Int32 = 1 << 20

  /// Takes all clients that wait at the listener.
  func accept(_ listener: Listener) {
    while true {
      do throws(SystemError) {
        guard let accepted = try listener.socket.accept() else { return }
        guard connectionCount < socketsMax else {
          log.warning("\(accepted.peer) is turned away: \(connectionCount) clients are connected")
          continue
        }
        try add(accepted)
      } catch {
        log.error("a client could not be accepted: \(error)")
        if error.code == EMFILE || error.code == ENFILE { pauseListeners() }
        return
      }
    }
  }

  private func add(_ accepted: consuming AcceptedSocket) throws(SystemError) {
    let peer = accepted.peer
    let socket = accepted.take()
    socket.setNoDelay()
    socket.setReceiveBuffer(bytes: Self.receiveBufferBytes)
    let name = "\(peer) -> \(socket.localAddress)"
    let session = Session(
      broker: broker, settings: settings, log: log, peerName: name, isLoopback: peer.isLoopback)
    session.isOverLimit = connectionCount >= options.connectionsMax
    let slot = freeSlots.popLast() ?? connections.count
    generation += 1
    let token = (generation & 0x7FFF_FFFF) << 32 | UInt64(slot)
    let connection = Connection(
      socket: socket, session: session, token: token, now: now,
      deadline: now + Int64(options.handshakeTimeoutMilliseconds))
    try poller.add(
      connection.socket.descriptor.raw, token: token, reads: true, writes: false)
    if slot == connections.count {
      connections.append(connection)
    } else {
      connections[slot] = connection
    }
    connectionCount += 1
    session.onDirty = { [unowned self, unowned connection] in dirty.append(connection) }
    session.onOpen = { [unowned connection] in connection.deadline = .max }
    log.debug("\(name) connected")
  }

  /// The connection is over. `reason` is logged unless the client knows it.
  func drop(_ connection: Connection, _ reason: String?) {
    guard !connection.isClosed else { return }
    connection.isClosed = true
    let session = connection.session
    if session.state == .closed || session.state == .closing {
      log.debug("\(session.peerName) disconnected")
    } else if let reason {
      let level = session.state == .open ? "closed" : "closed before it was open"
      log.warning("\(session.peerName) \(level): \(reason)")
    }
    session.release()
    session.state = .closed
    session.out.removeAll()
    poller.remove(connection.socket.descriptor.raw)
    connection.socket.shutdownBoth()
    let slot = Int(connection.token & 0xFFFF_FFFF)
    connections[slot] = nil
    freeSlots.append(slot)
    connectionCount -= 1
  }

  // MARK: Out of descriptors

  private func pauseListeners() {
    guard isAccepting else { return }
    isAccepting = false
    for listener in listeners { poller.remove(listener.socket.descriptor.raw) }
  }

  /// Watches the listeners again, some time after descriptors ran out.
  func watchListeners() {
    guard !isAccepting else { return }
    isAccepting = true
    for (index, listener) in listeners.enumerated() {
      do throws(SystemError) {
        try poller.add(
          listener.socket.descriptor.raw, token: Token.listeners + UInt64(index), reads: true,
          writes: false)
      } catch {
        log.error("a listener cannot be watched: \(error)")
      }
    }
  }
}
