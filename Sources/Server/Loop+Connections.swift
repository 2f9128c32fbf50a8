import Base
import Broker
import IO

extension Loop {
  /// A client has connected, with whom a conversation begins in `wireProtocol`. What carries its bytes
  /// gets the token that the loop knows the connection by, and watches for input.
  package func add(
    _ client: ClientAddress, speaking wireProtocol: any WireProtocol,
    _ makeTransport: (_ token: UInt64) throws(SystemError) -> any Transport
  ) throws(SystemError) -> Connection {
    let slot = freeSlots.last ?? connections.count
    generation += 1
    let token = (generation & 0x7FFF_FFFF) << 32 | UInt64(slot)
    let transport = try makeTransport(token)
    let conversation = wireProtocol.begin(with: client, beside: connectionCount)
    let connection = Connection(
      loop: self, transport: transport, conversation: conversation, token: token, now: now,
      deadline: now + settings.handshakeMilliseconds)
    if slot == connections.count {
      connections.append(connection)
    } else {
      freeSlots.removeLast()
      connections[slot] = connection
    }
    connectionCount += 1
    broker.account.add(Connection.memoryBytes, to: .connections)
    conversation.host = connection
    arm(connection)
    log.debug("\(client.name) connected")
    return connection
  }

  /// The connection is over. `reason` is logged unless the client knows it.
  package func drop(_ connection: Connection, _ reason: String?) {
    guard !connection.isClosed else { return }
    connection.isClosed = true
    tellEnd(of: connection, reason)
    connection.conversation.end()
    connection.leftover.removeAll()
    connection.leftover.shrink(to: 0)
    recount(connection)
    broker.account.add(-Connection.memoryBytes, to: .connections)
    forgetUnproven(connection)
    connection.transport.close()
    let slot = connection.slot
    deadlines.cancel(slot)
    connections[slot] = nil
    freeSlots.append(slot)
    connectionCount -= 1
  }

  private func tellEnd(of connection: Connection, _ reason: String?) {
    let name = connection.conversation.name
    switch (connection.conversation.phase, reason) {
    case (.closed, _), (.closing, _), (_, nil): log.debug("\(name) disconnected")
    case (.open, let reason?): log.tell(.lost, of: name, "\(name) closed: \(reason)")
    // Whoever looks whether the port is open is no client.
    case (.unheard, let reason?) where now < connection.deadline:
      log.debug("\(name) left without a word: \(reason)")
    case (_, let reason?):
      log.tell(.notOpened, of: name, "\(name) closed before it was open: \(reason)")
    }
  }
}

/// What conversations tell.
extension Connection: ConversationHost {
  package func hasOutput() { loop.dirty.append(self) }

  package func didOpen() {
    deadline = .max
    loop.prove(self)
  }

  package func didPass(untaken: Int) {
    loop.witness?.didTake(from: self, untaken: untaken)
    loop.witness?.willTake(from: self)
  }

  package func willRelease() { loop.witness?.willRelease(self) }
}
