import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Deliveries that go back by themselves: `x-lock-timeout`.
@Suite struct LockTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private let other: TestClient

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    other = broker.connect()
  }

  /// So much time passes, and what is due by then is done.
  private func pass(_ milliseconds: Int64) {
    _ = broker.rest(milliseconds: milliseconds)
    while broker.broker.hasChores || broker.broker.hasDue { _ = broker.rest(milliseconds: 0) }
  }

  /// A turn for which no time passes.
  private func act(_ body: () throws -> Void) rethrows {
    try body()
    pass(0)
  }

  private func declare(_ lock: Int64?, _ more: FieldTable = [:], _ name: Name = "q") throws {
    var arguments = more
    if let lock { arguments.entries.append(.init(name: "x-lock-timeout", value: .int64(lock))) }
    try channel.declare(name, arguments: arguments)
  }

  private func fill(_ count: Int, _ queue: Name = "q") throws {
    try act { for number in 0..<count { try channel.publish("\(number)", key: queue) } }
  }

  private func consume(
    _ channel: Channel, _ tag: Name = "c", lock: Int64? = nil, queue: Name = "q"
  ) throws {
    var arguments: FieldTable = [:]
    if let lock { arguments.entries.append(.init(name: "x-lock-timeout", value: .int64(lock))) }
    try act {
      _ = try channel.consume(
        queue, tag: tag, isAutomatic: false, isExclusive: false, arguments: arguments)
    }
  }

  private var counts: LockCounts { broker.broker.lockCounts }

  // MARK: Going back

  @Test func whatIsNotAcknowledgedInTimeIsOfferedAgain() throws {
    try declare(100)
    try consume(channel)
    try fill(1)
    #expect(client.deliveries().map(\.tag) == [1])
    pass(99)
    #expect(client.events() == [])
    pass(1)
    let again = client.deliveries()
    #expect(again.map(\.tag) == [2] && again.map(\.isRedelivered) == [true])
    #expect(counts.deliveries == 1 && counts.consumers == 0)
    pass(99)
    #expect(client.events() == [])
    pass(1)
    #expect(client.deliveries().map(\.tag) == [3])
  }

  @Test func whatIsAcknowledgedInTimeIsNot() throws {
    try declare(100)
    try consume(channel)
    try fill(3)
    pass(50)
    try act { try channel.acknowledge(3, isMultiple: true) }
    pass(1000)
    #expect(client.deliveries().count == 3 && counts.deliveries == 0)
    #expect(broker.broker.deadlines.count == 0, "nobody waits for anything")
    broker.expectNothingHeld()
  }

  @Test func eachHasItsOwnTime() throws {
    try declare(1000)
    channel.setPrefetch(1, isGlobal: true)
    try consume(channel)
    try consume(other.open(), "d")
    try fill(1)
    pass(600)
    try fill(1)
    let first = client.deliveries() + other.deliveries()
    #expect(first.count == 2)
    pass(400)
    #expect(counts.deliveries == 1)
    // A 256th of the time later at most.
    pass(597)
    #expect(counts.deliveries == 1)
    pass(6)
    #expect(counts.deliveries == 2)
  }

  @Test func theOldOrderIsKeptWhateverComesBack() throws {
    let count = 30_000
    try declare(200)
    try consume(channel)
    try fill(count)
    #expect(client.deliveries().count == count)
    act { channel.cancel("c") }
    let next = other.open()
    try consume(next, "d", lock: 0)
    pass(199)
    #expect(other.events() == [])
    #expect(broker.rest(milliseconds: 1) > 1, "in slices")
    pass(0)
    let again = other.deliveries()
    #expect(again.map(\.text) == (0..<count).map(String.init))
    #expect(again.allSatisfy(\.isRedelivered) && counts.deliveries == count)
    try act { try next.acknowledge(0, isMultiple: true) }
    broker.finishChores()
    pass(1000)
    #expect(broker.broker.deadlines.count == 0)
    broker.expectNothingHeld()
  }

  @Test func aConsumersOwnTimeCountsBeforeItsQueues() throws {
    try declare(100)
    try consume(channel, lock: 300)
    try fill(1)
    pass(299)
    #expect(counts.deliveries == 0)
    pass(1)
    #expect(counts.deliveries == 1)
    act { channel.cancel("c") }
    pass(310)
    #expect(counts.deliveries == 2)
    _ = client.events()
    try consume(channel, lock: 0)
    pass(10_000)
    #expect(client.deliveries().count == 1 && counts.deliveries == 2, "0 is for ever")
  }

  @Test func timesOfManyLengthsAreKept() throws {
    for length in 1...100 {
      let name = Name("q\(length)")
      try declare(Int64(length) * 10, [:], name)
      try channel.publish("\(length)", key: name)
    }
    for length in 1...100 {
      let got = try channel.take(Name("q\(length)"), isAutomatic: false)
      #expect(got?.text == "\(length)")
    }
    for length in 1...100 {
      pass(9)
      #expect(counts.deliveries == length - 1)
      pass(1)
      #expect(counts.deliveries == length)
    }
    #expect(broker.broker.deadlines.count == 0)
  }

  @Test func getLocksAsWell() throws {
    try declare(100)
    try fill(2)
    let first = try #require(try channel.take("q", isAutomatic: false))
    _ = try channel.take("q")
    pass(100)
    #expect(counts.deliveries == 1, "what counts as acknowledged has no lock")
    let again = try #require(try channel.take("q", isAutomatic: false))
    #expect(again.text == "0" && again.isRedelivered)
    try channel.acknowledge(first.tag, isMultiple: false)
    try channel.acknowledge(again.tag, isMultiple: false)
    #expect(counts.lateAnswers == 1)
    pass(100)
    broker.expectNothingHeld()
  }

  @Test func comingBackCountsForTheDeliveryLimit() throws {
    try declare(100, ["x-delivery-limit": .int64(1)])
    try consume(channel)
    try fill(1)
    pass(100)
    #expect(client.deliveries().count == 2)
    pass(100)
    #expect(client.deliveries().count == 0 && counts.deliveries == 2)
    broker.expectNothingHeld()
  }

  // MARK: Late answers

  @Test func lateAnswersAreIgnoredAndCounted() throws {
    try declare(100)
    try consume(channel)
    try fill(3)
    act { channel.cancel("c") }
    try consume(other.open(), "d", lock: 0)
    pass(100)
    #expect(other.deliveries().map(\.text) == ["0", "1", "2"])
    try channel.acknowledge(1, isMultiple: false)
    try channel.reject(2, isMultiple: false, requeues: true)
    try channel.reject(3, isMultiple: true, requeues: false)
    #expect(counts.lateAnswers == 3)
    #expect(mistake { try channel.acknowledge(4, isMultiple: false) } == .unknownDelivery(4))
    #expect(mistake { try channel.acknowledge(0, isMultiple: false) } == .unknownDelivery(0))
    pass(0)
    #expect(broker.queue("q")?.unacknowledgedCount == 3, "they are another's")
  }

  @Test func withoutLocksALateAnswerIsAMistake() throws {
    try declare(nil)
    try consume(channel)
    try fill(1)
    try act { try channel.acknowledge(1, isMultiple: false) }
    #expect(mistake { try channel.acknowledge(1, isMultiple: false) } == .unknownDelivery(1))
    #expect(counts.lateAnswers == 0)
  }

  @Test func aLateAnswerToManyAnswersWhatIsOut() throws {
    try declare(nil)
    try consume(channel, "plain")
    try fill(1)
    act { channel.cancel("plain") }
    try consume(channel, "locked", lock: 100)
    try fill(1)
    pass(100)
    #expect(client.deliveries().map(\.tag) == [1, 2, 3])
    try act { try channel.acknowledge(2, isMultiple: true) }
    #expect(broker.queue("q")?.unacknowledgedCount == 1 && counts.lateAnswers == 1)
    try act { try channel.acknowledge(3, isMultiple: false) }
    broker.expectNothingHeld()
  }

  /// What was acknowledged in time does not come back, though it is settled over many turns.
  @Test func whatIsBeingAcknowledgedIsInTime() throws {
    let count = 100_000
    try declare(100)
    try consume(channel)
    try fill(count)
    pass(99)
    try channel.acknowledge(0, isMultiple: true)
    #expect(channel.work != nil)
    pass(1000)
    #expect(counts.deliveries == 0 && client.deliveries().count == count)
    broker.expectNothingHeld()
  }

  // MARK: Prolonging

  private func prolong(_ tag: UInt64, isMandatory: Bool = false) throws {
    try act { try channel.publish("", key: Name("amq.lock.\(tag)"), isMandatory: isMandatory) }
  }

  @Test func aProlongedLockLastsItsWholeTimeAgain() throws {
    try declare(100)
    try consume(channel)
    try fill(2)
    pass(60)
    try prolong(1, isMandatory: true)
    pass(39)
    #expect(counts.deliveries == 0)
    pass(1)
    #expect(client.deliveries().map(\.text) == ["0", "1", "1"], "the other one was not prolonged")
    pass(30)
    try prolong(1)
    pass(99)
    #expect(counts.deliveries == 2)
    pass(1)
    #expect(client.deliveries().map(\.text) == ["1", "0"])
    try act { try channel.acknowledge(1, isMultiple: false) }
    #expect(counts.lateAnswers == 1)
  }

  @Test func whatCannotBeProlongedIsUnroutable() throws {
    try declare(100)
    try consume(channel)
    try consume(channel, "plain", lock: 0)
    try fill(2)
    let deliveries = client.deliveries()
    #expect(deliveries.map(\.consumer) == ["c", "plain"])
    for key in [
      "2", "3", "0", "", "1x", "+1", "-1", "99999999999999999999", "18446744073709551617",
    ] {
      try act {
        try channel.publish("", key: Name("amq.lock.\(key)"), isMandatory: true)
      }
      let events = client.events()
      #expect(events.count == 1, "\(key)")
      guard case .returned? = events.first else {
        Issue.record("\(key) is not returned")
        continue
      }
    }
    let stranger = other.open()
    try act { try stranger.publish("", key: "amq.lock.1", isMandatory: true) }
    #expect(other.events().count == 1, "a tag is its channel's")
    pass(100)
    #expect(counts.deliveries == 1)
  }

  @Test func prolongingIsConfirmed() throws {
    try declare(100)
    try consume(channel)
    try channel.startConfirming()
    try fill(1)
    _ = client.events()
    try prolong(1)
    #expect(client.events() == [.confirmed(2, isMultiple: false, on: 1)])
  }

  /// Whoever prolongs and acknowledges for ever does not gather anything.
  @Test func whatIsProlongedAndAcknowledgedIsForgotten() throws {
    try declare(1_000_000)
    try consume(channel)
    let before = broker.broker.account[.deliveries]
    for batch in 0..<200 as Range<UInt64> {
      try fill(100)
      for number in 1...100 as ClosedRange<UInt64> {
        let tag = batch * 100 + number
        try channel.publish("", key: Name("amq.lock.\(tag)"))
        try channel.acknowledge(tag, isMultiple: false)
      }
    }
    #expect(client.deliveries().count == 20_000)
    #expect(broker.broker.account[.deliveries] - before < 30_000)
    #expect(counts.deliveries == 0)
  }

  // MARK: Ends

  @Test func aClosedChannelHasNoLocks() throws {
    try declare(100)
    try consume(channel)
    try fill(10)
    try prolong(3)
    #expect(broker.broker.deadlines.count == 1)
    act { channel.close() }
    #expect(broker.broker.deadlines.count == 0 && broker.queue("q")?.readyCount == 10)
    pass(1000)
    #expect(counts.deliveries == 0)
  }

  @Test func aDeletedQueueTakesNothingBack() throws {
    try declare(100)
    try consume(channel)
    try fill(10)
    try act { try channel.delete("q") }
    pass(200)
    #expect(broker.broker.deadlines.count == 0)
    try channel.acknowledge(10, isMultiple: true)
    broker.expectNothingHeld()
  }

  // MARK: Arguments

  @Test func impossibleTimesAreRefused() throws {
    let mistakes: [(FieldValue, String)] = [
      (.string("1"), "\"expected integer, got longstr\""), (.int64(-1), "{value_negative,-1}"),
      (.int64(315_360_000_001), "{value_too_large,315360000001}"),
    ]
    try declare(nil)
    for name in ["x-lock-timeout", "x-consumer-timeout"] as [Name] {
      for (value, reason) in mistakes {
        let refused = BrokerError.refusedArgument(
          name, of: .subject(.queue("q", in: "/")), reason: reason)
        let new = BrokerError.refusedArgument(
          name, of: .subject(.queue("new", in: "/")), reason: reason)
        #expect(mistake { try channel.declare("new", arguments: [name: value]) } == new)
        #expect(
          mistake {
            _ = try channel.consume(
              "q", tag: "c", isAutomatic: false, isExclusive: false, arguments: [name: value])
          } == refused)
      }
      #expect(
        mistake { try channel.declare("q", arguments: [name: .int64(1)]) }
          == .existsWithArgument(
            .queue("q", in: "/"), argument: name, wanted: "the value '1' of type 'long'",
            present: "none"))
    }
  }
}

/// How times are noted.
@Suite struct LockRingTests {
  @Test(arguments: [1, 2, 100, 255, 256, 1000, 60_000, 1_000_003] as [Int64])
  func nothingIsEarlyAndNothingMuchLate(milliseconds: Int64) {
    let ring = LockRing(milliseconds: milliseconds)
    var random = SeededRandom(UInt64(milliseconds))
    var left: [Int64] = [0]
    var time: Int64 = 5
    var next = 1
    let late = max(1, milliseconds / 256)
    while left.count < 20_000 {
      let step = max(2, milliseconds / 64)
      time += Int64.random(in: 0...2, using: &random) * Int64.random(in: 0..<step, using: &random)
      while let last = ring.lastDue(at: time) {
        while next <= Int(last) {
          #expect(left[next] + milliseconds <= time)
          next += 1
        }
        ring.passed(last)
      }
      if next < left.count, let due = ring.due { #expect(due <= left[next] + milliseconds + late) }
      #expect(ring.byteCount < 16 << 10)
      _ = ring.note(UInt64(left.count), at: time)
      left.append(time)
    }
    #expect(next > 1)
  }
}
