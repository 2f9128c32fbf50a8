import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What a channel with transactions does waits for its commit.
@Suite struct TransactionTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private let other: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    other = broker.connect().open()
    try channel.startTransactions()
    try channel.declare("q", isDurable: true)
    try channel.declare("r")
  }

  private func count(_ queue: Name) -> Int? { broker.queue(queue)?.messageCount }

  /// Takes so many messages of a queue, which are unacknowledged; returns their tags.
  private func take(_ count: Int, of queue: Name = "q") throws -> [UInt64] {
    try (0..<count).map { _ in try #require(try channel.take(queue, isAutomatic: false)).tag }
  }

  /// So many messages are in the queue.
  private func fill(_ count: Int, in queue: Name = "q", isPersistent: Bool = true) throws {
    try broker.durableTurn {
      for number in 0..<count {
        try other.publish("\(number)", key: queue, isPersistent: isPersistent)
      }
    }
  }

  // MARK: Messages

  @Test func messagesArriveAtTheCommitInTheirOrder() throws {
    try broker.turn {
      for number in 0..<3 { try channel.publish("\(number)", key: "q", isPersistent: true) }
      try channel.publish("r", key: "r")
    }
    #expect(count("q") == 0 && count("r") == 0)
    try broker.turn { _ = try channel.commit() }
    #expect(try other.drain("q").map(\.text) == ["0", "1", "2"])
    #expect(try other.drain("r").map(\.text) == ["r"])
    #expect(try channel.commit() == .now, "nothing is left for another one")
    #expect(count("q") == 0)
  }

  @Test func theCommitIsDurableWithItsGroup() throws {
    try channel.publish("1", key: "q", isPersistent: true)
    var committed: Committed? = .now
    try broker.turn { committed = try channel.commit() }
    #expect(committed == .whenDurable(broker.journal.endPosition))
    try channel.publish("2", key: "r", isPersistent: true)
    try broker.turn { committed = try channel.commit() }
    #expect(committed == .now, "nothing of it is in the log")
  }

  @Test func aRollbackForgetsMessages() throws {
    try channel.publish("1", key: "q")
    try channel.publishLarge([UInt8](repeating: 1, count: 100_000), key: "q")
    #expect(broker.broker.account[.transactions] >= 100_000)
    try channel.rollback()
    try channel.publish("2", key: "q")
    try broker.turn { _ = try channel.commit() }
    #expect(try other.drain("q").map(\.text) == ["2"])
    channel.close()
    #expect(broker.broker.account[.transactions] == 0)
    #expect(client.peer.transactionBytes == 0)
  }

  @Test func theEndOfTheChannelIsARollback() throws {
    try fill(2)
    try channel.acknowledge(try take(1)[0], isMultiple: false)
    try channel.publish("1", key: "r")
    broker.turn { channel.close() }
    #expect(count("r") == 0)
    #expect(broker.queue("q")?.readyCount == 2)
    #expect(broker.broker.account[.transactions] == 0)
  }

  @Test(arguments: [10, 100_000])
  func bodiesOfAnySizeArriveInAllQueues(size: Int) throws {
    try broker.vhost.declare(exchange: "x", "fanout")
    try channel.bind("q", to: "x")
    try channel.bind("r", to: "x")
    let body = (0..<size).map { UInt8(truncatingIfNeeded: $0 % 251) }
    try channel.publishLarge(body, to: "x", key: "k", isPersistent: true)
    try channel.publish(body, to: "x", key: "k", isPersistent: true)
    try broker.turn { _ = try channel.commit() }
    for queue in ["q", "r"] as [Name] {
      #expect(try other.drain(queue).map(\.message.body) == [body, body])
    }
    channel.close()
    other.close()
    broker.expectNothingHeld()
  }

  @Test func whatCannotBeRoutedComesBackAtTheCommit() throws {
    try channel.publish("dropped", key: "nowhere")
    try channel.publish("small", key: "nowhere", isMandatory: true)
    try channel.publish("routed", key: "q", isMandatory: true)
    try channel.publishLarge(
      [UInt8](repeating: 7, count: 70_000), key: "nowhere", isMandatory: true)
    broker.turn()
    #expect(client.events() == [])
    try broker.turn { _ = try channel.commit() }
    let returned = client.events().compactMap { event -> [UInt8]? in
      if case .returned(let message, on: 1) = event { message.body } else { nil }
    }
    #expect(returned == [Array("small".utf8), [UInt8](repeating: 7, count: 70_000)])
    #expect(count("q") == 1)
  }

  // MARK: Clients that want nothing to happen unless all can

  @Test func aCommitIsRolledBackIfNoQueueTakesAMandatoryMessage() throws {
    client.peer.rollsBackUnroutable = true
    try fill(1)
    let tag = try take(1)[0]
    let large = [UInt8](repeating: 7, count: 70_000)
    try channel.publish("routed", key: "q", isPersistent: true, isMandatory: true)
    try channel.publish("small", key: "nowhere", isMandatory: true)
    try channel.publishLarge(large, key: "nowhere", isMandatory: true)
    try channel.acknowledge(tag, isMultiple: false)
    try broker.durableTurn {
      let committed = try channel.commit()
      #expect(committed == nil)
    }
    let returned = client.events().compactMap { event -> [UInt8]? in
      if case .returned(let message, on: 1) = event { message.body } else { nil }
    }
    #expect(returned == [Array("small".utf8), large])
    #expect(broker.queue("q")?.readyCount == 0)
    #expect(broker.queue("q")?.unacknowledgedCount == 1, "it is not acknowledged")
    // The next one begins with nothing.
    try channel.publish("routed", key: "r", isMandatory: true)
    try channel.acknowledge(tag, isMultiple: false)
    try broker.durableTurn {
      let committed = try channel.commit()
      #expect(committed != nil)
    }
    #expect(count("q") == 0 && count("r") == 1)
    #expect(client.events() == [])
  }

  @Test func messagesThatNeedNotArriveRollNothingBack() throws {
    client.peer.rollsBackUnroutable = true
    try channel.publish("dropped", key: "nowhere")
    try channel.publish("routed", key: "r")
    try broker.turn {
      let committed = try channel.commit()
      #expect(committed == .now)
    }
    #expect(count("r") == 1)
  }

  /// A message for later is taken, and so is a reply for whoever waits for it.
  @Test func whatReachesNoQueueAndYetSomebodyIsTaken() throws {
    client.peer.rollsBackUnroutable = true
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", arguments: ["x-delayed-type": .string("direct")])
    var properties = BasicProperties()
    properties.headers = ["x-delay": .int32(1000)]
    try channel.publish("1", to: "later", key: "k", properties: properties, isMandatory: true)
    try broker.turn {
      let committed = try channel.commit()
      #expect(committed == .now)
    }
    let asking = broker.connect()
    let theirs = asking.open()
    try theirs.consume("amq.rabbitmq.reply-to", tag: "r", isAutomatic: true)
    let address = try #require(theirs.replies?.address)
    try channel.publish("2", key: address, isMandatory: true)
    try broker.turn {
      let committed = try channel.commit()
      #expect(committed == .now)
    }
    #expect(asking.deliveries().map(\.text) == ["2"])
    theirs.close()
    try channel.publish("3", key: address, isMandatory: true)
    try broker.turn {
      let committed = try channel.commit()
      #expect(committed == nil)
    }
  }

  /// Where messages go is found at the commit.
  @Test func bindingsCountAtTheCommit() throws {
    try broker.vhost.declare(exchange: "x", "fanout")
    try broker.vhost.declare(exchange: "gone", "fanout")
    try channel.publish("1", to: "x", key: "")
    try channel.publish("2", to: "gone", key: "", isMandatory: true)
    try channel.bind("q", to: "x")
    try broker.vhost.delete(exchange: "gone")
    try broker.turn { _ = try channel.commit() }
    #expect(try other.drain("q").map(\.text) == ["1"])
    #expect(client.events().count == 1, "an exchange that has gone leads nowhere")
  }

  @Test func headersFiltersAndBlindCopiesWorkAsForAnyPublish() throws {
    try broker.vhost.declare(exchange: "h", "headers")
    try channel.bind("q", to: "h", arguments: ["a": .int32(1)])
    try channel.publish("h", to: "h", headers: ["a": .int32(1)])
    try channel.publish("no", to: "h", headers: ["a": .int32(2)])
    try channel.publish("b", key: "r", headers: ["BCC": .array([.string("q")])])
    try broker.turn { _ = try channel.commit() }
    let got = try other.drain("q")
    #expect(got.map(\.text) == ["h", "b"])
    let properties = got[1].message.properties
    var reader = ByteReader(properties.span.bytes)
    #expect(try BasicProperties(from: &reader).headers?["BCC"] == nil)
    #expect(try other.drain("r").map(\.text) == ["b"])
  }

  @Test func whatIsWrongWithAMessageIsToldAtOnce() throws {
    try broker.vhost.declare(exchange: "inner", "fanout", isInternal: true)
    var wrong = BasicProperties()
    wrong.expiration = "soon"
    #expect(
      mistake { try channel.publish("1", to: "none", key: "") }
        == .notFound(.exchange("none", in: "/")))
    #expect(
      mistake { try channel.publish("1", to: "inner", key: "") }
        == .isInternal(exchange: "inner", in: "/"))
    #expect(
      mistake { try channel.publish("1", key: "q", properties: wrong) }
        == .refusedExpiration("soon", reason: "no_integer"))
    wrong = BasicProperties()
    wrong.userID = "somebody"
    #expect(
      mistake { try channel.publish("1", key: "q", properties: wrong) }
        == .userMismatch(given: "somebody", user: "guest"))
    #expect(mistake { try channel.publish("1", key: "q", headers: ["CC": .int32(1)]) } != nil)
    try broker.turn { _ = try channel.commit() }
    #expect(count("q") == 0)
  }

  @Test func directRepliesGoOutAtTheCommit() throws {
    let asker = broker.connect()
    let asking = asker.open()
    _ = try asking.consume(
      "amq.rabbitmq.reply-to", tag: "c", isAutomatic: true, isExclusive: false, arguments: [:])
    let address = try #require(asking.replies?.address)
    try channel.publish("reply", key: address)
    broker.turn()
    #expect(asker.bodies() == [])
    try broker.turn { _ = try channel.commit() }
    #expect(asker.bodies() == ["reply"])
  }

  @Test func prioritiesAndLivesAreKept() throws {
    try channel.declare("p", isDurable: true, arguments: ["x-max-priority": .int32(5)])
    for priority in [1, 5, 3] as [UInt8] {
      var properties = BasicProperties()
      properties.priority = priority
      try channel.publish("\(priority)", key: "p", properties: properties, isPersistent: true)
    }
    var short = BasicProperties()
    short.expiration = "100"
    try channel.publish("short", key: "q", properties: short)
    try broker.turn { _ = try channel.commit() }
    #expect(try other.drain("p").map(\.text) == ["5", "3", "1"])
    broker.advance(milliseconds: 200)
    broker.turn()
    #expect(count("q") == 0)
  }

  // MARK: Answers

  @Test func acknowledgementsTakeEffectAtTheCommit() throws {
    try fill(4)
    let tags = try take(4)
    try channel.acknowledge(tags[1], isMultiple: false)
    try channel.reject(tags[2], isMultiple: false, requeues: true)
    try channel.reject(tags[3], isMultiple: false, requeues: false)
    broker.turn()
    #expect(broker.queue("q")?.unacknowledgedCount == 4)
    try broker.turn { _ = try channel.commit() }
    #expect(broker.queue("q")?.unacknowledgedCount == 1)
    let back = try other.drain("q")
    #expect(back.map(\.text) == ["2"] && back.map(\.isRedelivered) == [true])
  }

  @Test func whatWasAcknowledgedCannotBeAcknowledgedAgain() throws {
    try fill(3)
    let tags = try take(3)
    try channel.acknowledge(tags[1], isMultiple: true)
    for tag in tags[..<2] + [99] {
      for isMultiple in [false, true] {
        #expect(
          mistake { try channel.acknowledge(tag, isMultiple: isMultiple) } == .unknownDelivery(tag))
        #expect(
          mistake { try channel.reject(tag, isMultiple: isMultiple, requeues: true) }
            == .unknownDelivery(tag))
      }
    }
    try channel.rollback()
    broker.turn()
    #expect(broker.queue("q")?.unacknowledgedCount == 3, "not redelivered")
    try channel.acknowledge(0, isMultiple: true)
    try broker.turn { _ = try channel.commit() }
    #expect(count("q") == 0)
  }

  @Test func untilTheCommitItCountsForThePrefetch() throws {
    try fill(3)
    channel.setPrefetch(1, isGlobal: false)
    try broker.turn { try channel.consume("q", tag: "c") }
    #expect(client.bodies() == [])
    broker.durableTurn()
    #expect(client.bodies() == ["0"])
    try broker.durableTurn { try channel.acknowledge(1, isMultiple: false) }
    #expect(client.bodies() == [])
    try broker.durableTurn { _ = try channel.commit() }
    #expect(client.bodies() == ["1"])
    try channel.acknowledge(2, isMultiple: false)
    try channel.rollback()
    broker.durableTurn()
    #expect(client.bodies() == [])
  }

  @Test func recoveringGivesBackWhatHasNoAnswer() throws {
    try fill(5)
    let tags = try take(5)
    try channel.acknowledge(tags[1], isMultiple: false)
    try channel.acknowledge(tags[3], isMultiple: false)
    broker.turn { channel.recover() }
    #expect(broker.queue("q")?.unacknowledgedCount == 2)
    #expect(try other.drain("q").map(\.text) == ["0", "2", "4"])
    try broker.turn { _ = try channel.commit() }
    #expect(count("q") == 0)
  }

  @Test func deliveriesOfADeletedQueueCanBeAnswered() throws {
    try fill(2, in: "r", isPersistent: false)
    let tags = try take(2, of: "r")
    try channel.publish("1", key: "r")
    try channel.acknowledge(tags[0], isMultiple: false)
    try channel.delete("r")
    broker.turn()
    try channel.reject(tags[1], isMultiple: false, requeues: false)
    try broker.turn { _ = try channel.commit() }
    channel.close()
    broker.expectNothingHeld()
  }

  // MARK: Modes

  @Test func confirmsAndTransactionsExcludeEachOther() throws {
    #expect(mistake { try channel.startConfirming() } == .isTransactional)
    try channel.startTransactions()
    let confirming = client.open(2)
    try confirming.startConfirming()
    #expect(mistake { try confirming.startTransactions() } == .isConfirming)
    #expect(mistake { _ = try other.commit() } == .isNotTransactional)
    #expect(mistake { try other.rollback() } == .isNotTransactional)
  }

  /// A second select begins no second transaction.
  @Test func selectingAgainKeepsWhatWaits() throws {
    try channel.publish("1", key: "q")
    try channel.startTransactions()
    try broker.turn { _ = try channel.commit() }
    #expect(count("q") == 1)
  }
}
