import Base
import Broker
import IO

extension Loop {
  /// A client has connected; `name` is such as `127.0.0.1:40562 -> 127.0.0.1:5672`. What carries its
  /// bytes gets the token that the loop knows the connection by, and watches for input.
  package func add(
    name: String, isLoopback: Bool,
    _ makeTransport: (_ token: UInt64) throws(SystemError) -> any Transport
  ) throws(SystemError) -> Connection {
    let slot = freeSlots.last ?? connections.count
    generation += 1
    let token = (generation & 0x7FFF_FFFF) << 32 | UInt64(slot)
    let transport = try makeTransport(token)
    let session = Session(
      broker: broker, settings: settings.session, log: log, peerName: name,
      isLoopback: isLoopback)
    session.isOverLimit = connectionCount >= settings.session.connectionsMax
    let connection = Connection(
      transport: transport, session: session, token: token, now: now,
      deadline: now + settings.handshakeMilliseconds)
    if slot == connections.count {
      connections.append(connection)
    } else {
      freeSlots.removeLast()
      connections[slot] = connection
    }
    connectionCount += 1
    broker.account.add(Connection.memoryBytes, to: .connections)
    session.onDirty = { [unowned self, unowned connection] in dirty.append(connection) }
    session.onOpen = { [unowned self, unowned connection] in
      connection.deadline = .max
      prove(connection)
    }
    if witness != nil {
      session.onPassed = { [unowned self, unowned connection] untaken in
        witness?.didTake(from: connection, untaken: untaken)
        witness?.willTake(from: connection)
      }
      session.onRelease = { [unowned self, unowned connection] in
        witness?.willRelease(connection)
      }
    }
    log.debug("\(name) connected")
    return connection
  }

  /// The connection is over. `reason` is logged unless the client knows it.
  package func drop(_ connection: Connection, _ reason: String?) {
    guard !connection.isClosed else { return }
    connection.isClosed = true
    let session = connection.session
    tellEnd(of: connection, reason)
    // What it can no longer read is not delivered to it: without acknowledgements that would be lost.
    session.peer?.roomFilled()
    session.release()
    session.state = .closed
    session.giveUpOutput()
    connection.leftover.removeAll()
    connection.leftover.shrink(to: 0)
    recount(connection)
    broker.account.add(-Connection.memoryBytes, to: .connections)
    forgetUnproven(connection)
    connection.transport.close()
    let slot = Int(connection.token & 0xFFFF_FFFF)
    connections[slot] = nil
    freeSlots.append(slot)
    connectionCount -= 1
  }

  private func tellEnd(of connection: Connection, _ reason: String?) {
    let name = connection.session.peerName
    switch (connection.session.state, reason) {
    case (.closed, _), (.closing, _), (_, nil): log.debug("\(name) disconnected")
    case (.open, let reason?): log.tell(.lost, of: name, "\(name) closed: \(reason)")
    // Whoever looks whether the port is open is no client.
    case (.awaitingHeader, let reason?) where now < connection.deadline:
      log.debug("\(name) left without a word: \(reason)")
    case (_, let reason?):
      log.tell(.notOpened, of: name, "\(name) closed before it was open: \(reason)")
    }
  }
}
