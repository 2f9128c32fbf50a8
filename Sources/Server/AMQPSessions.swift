import Broker

/// AMQP 0-9-1 as clients are served in it.
package struct AMQPSessions: WireProtocol {
  private let broker: Broker
  let settings: SessionSettings
  private let log: Log
  private let toldArguments: ToldArguments

  package init(broker: Broker, settings: SessionSettings, log: Log) {
    self.broker = broker
    self.settings = settings
    self.log = log
    toldArguments = ToldArguments(log)
  }

  package func begin(
    with client: ClientAddress, beside connectionCount: Int
  ) -> any Conversation {
    let session = Session(
      broker: broker, settings: settings, log: log, peerName: client.name,
      isLoopback: client.isLoopback, toldArguments: toldArguments)
    session.isOverLimit = connectionCount >= settings.connectionsMax
    return session
  }
}
