import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// The answer to what was done before promises as much as the first one.
@Suite struct KnownAnswerTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
  }

  private func waits(_ committed: Committed) -> Bool {
    guard case .whenDurable(let position) = committed else { return false }
    return position > broker.journal.durablePosition
  }

  private func bind() throws -> Committed {
    try broker.vhost.bindQueue("q", to: "amq.direct", key: "k", arguments: [:], on: channel)
  }

  private func unbind(_ queue: Name = "q", from exchange: Name = "amq.direct") throws -> Committed {
    try broker.vhost.unbindQueue(queue, from: exchange, key: "k", arguments: [:], on: channel)
  }

  private func delete() throws -> Committed {
    try broker.vhost.deleteQueue("q", ifUnused: false, ifEmpty: false, on: channel).1
  }

  @Test func theSecondAnswerWaitsLikeTheFirst() throws {
    try channel.declare("q", isDurable: true)
    try broker.vhost.declare(exchange: "x", isDurable: true)
    var passive = ExchangeDeclaration(name: "x", type: "direct")
    passive.isPassive = true
    #expect(waits(try broker.vhost.declareExchange(passive, by: channel.peer)))
    broker.durableTurn()
    #expect(!waits(try broker.vhost.declareExchange(passive, by: channel.peer)))
    for step in [bind, { try unbind() }, delete] {
      #expect(waits(try step()))
      #expect(waits(try step()), "it is not durable yet")
      broker.durableTurn()
      #expect(!waits(try step()))
    }
    try broker.vhost.delete(exchange: "x")
    #expect(waits(try broker.vhost.deleteExchange("x", ifUnused: false, by: channel.peer)))
    #expect(waits(try unbind("q", from: "x")))
  }

  @Test func nothingWaitsForWhatIsInNoLog() throws {
    try channel.declare("d", isDurable: true)
    try channel.declare("q")
    #expect(try bind() == .now)
    #expect(try bind() == .now)
  }
}
