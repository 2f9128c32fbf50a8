import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

@Suite struct ConfirmTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    try channel.declare("durable", isDurable: true)
    try channel.declare("transient")
    broker.durableTurn()
    try channel.startConfirming()
  }

  private func publish(_ count: Int, to key: Name, isPersistent: Bool = true) throws {
    for _ in 0..<count { try channel.publish("m", key: key, isPersistent: isPersistent) }
  }

  private func confirmed(_ sequence: UInt64, isMultiple: Bool = true) -> Event {
    .confirmed(sequence, isMultiple: isMultiple, on: 1)
  }

  @Test func whatNeedsNoLogIsConfirmedAtTheTurnsEnd() throws {
    try broker.turn {
      try publish(3, to: "transient")
      try publish(2, to: "durable", isPersistent: false)
      try publish(1, to: "nobody")
      #expect(client.events() == [])
    }
    #expect(client.events() == [confirmed(6)])
    try broker.turn { try publish(1, to: "transient") }
    #expect(client.events() == [confirmed(7, isMultiple: false)])
    broker.turn()
    #expect(client.events() == [])
  }

  @Test func durableMessagesAreConfirmedWhenTheyAreDurable() throws {
    try broker.turn { try publish(5, to: "durable") }
    let position = broker.journal.endPosition
    #expect(client.events() == [])
    #expect(broker.journal.durablePosition < position)
    broker.durableTurn()
    #expect(client.events() == [confirmed(5)])
    #expect(broker.journal.durablePosition >= position)
    #expect(try broker.crashed().recoveredCount == 5)
  }

  @Test func whatComesBehindADurableMessageWaitsForIt() throws {
    try broker.turn {
      try publish(1, to: "transient")
      try publish(1, to: "durable")
      try publish(1, to: "transient")
    }
    try broker.turn { try publish(1, to: "transient") }
    var numbers: [UInt64] = []
    broker.durableTurn()
    for event in client.events() {
      guard case .confirmed(let sequence, let isMultiple, on: 1) = event else {
        Issue.record("\(event)")
        continue
      }
      #expect(isMultiple == (sequence - (numbers.last ?? 0) > 1))
      numbers.append(sequence)
    }
    #expect(numbers.last == 4)
    #expect(numbers == numbers.sorted())
  }

  @Test func everyPublishIsConfirmedOnceHoweverTheTurnsFall() throws {
    var random = SeededRandom(3)
    let other = broker.connect()
    let theirs = other.open(2)
    try theirs.startConfirming()
    var counts: [UInt64] = [0, 0]
    for turn in 0..<300 {
      try broker.turn {
        for _ in 0..<random.number(0..<4) {
          let isFirst = random.isOne(in: 2)
          counts[isFirst ? 0 : 1] += 1
          try (isFirst ? channel : theirs).publish(
            "m", key: random.isOne(in: 2) ? "durable" : "transient", isPersistent: true)
        }
      }
      if turn.isMultiple(of: 50) { broker.durableTurn() }
    }
    broker.durableTurn()
    for (client, count) in [(client, counts[0]), (other, counts[1])] {
      var last: UInt64 = 0
      for case .confirmed(let sequence, let isMultiple, on: _) in client.events() {
        #expect(sequence > last)
        #expect(isMultiple == (sequence > last + 1))
        last = sequence
      }
      #expect(last == count)
    }
  }

  @Test func aReturnComesBeforeItsConfirm() throws {
    try broker.turn {
      try channel.publish("1", key: "nobody", isMandatory: true)
      try channel.publish("2", key: "transient", isMandatory: true)
    }
    let events = client.events()
    #expect(events.count == 2)
    if case .returned(let message, on: 1) = events[0] {
      #expect(message.text == "1")
    } else {
      Issue.record("\(events)")
    }
    #expect(events[1] == confirmed(2))
  }

  @Test func aChannelThatIsClosedIsNotConfirmed() throws {
    try broker.turn { try publish(2, to: "durable") }
    channel.close()
    broker.durableTurn()
    #expect(client.events() == [])
    let next = client.open(1)
    try next.startConfirming()
    try broker.turn { try next.publish("m", key: "transient") }
    #expect(client.events() == [confirmed(1, isMultiple: false)])
  }

  // MARK: What is promised of other changes

  @Test func durableDeclarationsPromiseAPositionOfTheLog() throws {
    var wanted = QueueDeclaration(name: "q")
    wanted.isDurable = true
    let vhost = broker.vhost
    let journal = broker.journal
    let (_, committed) = try vhost.declareQueue(wanted, on: channel)
    #expect(committed == .whenDurable(journal.endPosition))
    #expect(try vhost.declareQueue(wanted, on: channel).1 == committed)
    wanted = QueueDeclaration(name: "p")
    #expect(try vhost.declareQueue(wanted, on: channel).1 == .now)
    let bound = try vhost.bindQueue(
      "q", to: "amq.direct", key: "", arguments: [:], on: channel)
    #expect(bound == .whenDurable(journal.endPosition))
    let again = try vhost.bindQueue(
      "q", to: "amq.direct", key: "", arguments: [:], on: channel)
    #expect(again == bound)
    let transient = try vhost.bindQueue(
      "p", to: "amq.direct", key: "", arguments: [:], on: channel)
    #expect(transient == .now)
    #expect(try vhost.purgeQueue("q", on: channel).1 == .whenDurable(journal.endPosition))
    let deleted = try vhost.deleteQueue("q", ifUnused: false, ifEmpty: false, on: channel)
    #expect(deleted.1 == .whenDurable(journal.endPosition))
    #expect(try vhost.purgeQueue("p", on: channel).1 == .now)
    #expect(
      try vhost.deleteQueue("p", ifUnused: false, ifEmpty: false, on: channel).1 == .now)
  }

  // MARK: A log that failed

  @Test func aLogThatFailsConfirmsNothingMore() throws {
    try broker.turn { try publish(3, to: "durable") }
    broker.journal.failure = "the disk is gone"
    broker.turn()
    #expect(client.events() == [.refused(3, isMultiple: true, on: 1)])
    let error = mistake { try channel.publish("m", key: "durable", isPersistent: true) }
    #expect(error == .journalFailed(reason: "the disk is gone"))
    channel.close()
    let next = client.open(2)
    try next.startConfirming()
    try broker.turn { try next.publish("transient", key: "durable") }
    #expect(client.events() == [.confirmed(1, isMultiple: false, on: 2)])
    #expect(try next.drain("durable").map(\.text) == ["m", "m", "m", "transient"])
  }
}
