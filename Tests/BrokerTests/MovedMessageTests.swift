import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages that the broker itself takes from one place to another. A crash takes back a move that the log does
/// not have, and then the message moves once more: nobody may have had it meanwhile without being told so.
@Suite struct MovedMessageTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  /// Moves before the log knows ahead of so many deliveries that it is not asked before the next.
  private static let warmUp = 40

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    try channel.declare("arrived", isDurable: true)
    try client.open(2).consume("arrived")
  }

  /// Every message that the consumer has got is there after a crash now, and is called redelivered.
  private func expectKnown(_ texts: [String]) throws {
    let position = broker.journal.durablePosition
    let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
    let found = try other.connect().open().drain("arrived")
    #expect(found.filter(\.isRedelivered).map(\.text).starts(with: texts))
    other.close()
  }

  /// Each turn takes a message further. What the consumer has got is looked at in the turn in which it gets it.
  private func expectKnown(_ count: Int, move: (Int) throws -> Void) throws {
    var got: [String] = []
    func take(_ number: Int) throws {
      let new = client.bodies()
      got += new
      if number >= Self.warmUp, !new.isEmpty { try expectKnown(got) }
    }
    for number in 0..<count {
      try broker.turn { try move(number) }
      try take(number)
      while got.count <= number {
        broker.turn()
        try take(number)
      }
    }
    #expect(got == (0..<count).map(String.init))
  }

  @Test func aDeadLetterIsGivenToNobodyBeforeTheLogHasIt() throws {
    try channel.declare(
      "work", isDurable: true,
      arguments: [
        "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("arrived"),
      ])
    let count = Self.warmUp + 5
    try broker.durableTurn {
      for number in 0..<count { try channel.publish("\(number)", key: "work", isPersistent: true) }
    }
    let tags = try (0..<count).map { _ in
      try #require(try channel.take("work", isAutomatic: false)).tag
    }
    try expectKnown(count) { number in
      try channel.reject(tags[number], isMultiple: false, requeues: false)
    }
  }

  @Test func whatWasKeptBackIsGivenToNobodyBeforeTheLogHasItsGoing() throws {
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", isDurable: true,
      arguments: ["x-delayed-type": .string("fanout")])
    try channel.bind("arrived", to: "later")
    let count = Self.warmUp + 5
    try broker.durableTurn {
      for number in 0..<count {
        var properties = BasicProperties()
        properties.headers = ["x-delay": .int64(Int64(number + 4) * 1000)]
        try channel.publish(
          "\(number)", to: "later", key: "", properties: properties, isPersistent: true)
      }
    }
    var got: [String] = []
    while got.count < count {
      broker.turn()
      let new = client.bodies()
      got += new
      if got.count > Self.warmUp, !new.isEmpty { try expectKnown(got) }
    }
    #expect(got == (0..<count).map(String.init))
  }
}
