import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// A turn that has taken long leaves what can wait for the next one, and does a part of each kind of
/// work all the same, so that none waits for ever.
@Suite struct LongTurnTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
  }

  /// From now on every turn has taken long when it begins.
  private func beLong() { broker.broker.isTurnLong = { true } }

  private func bindings(_ count: Int) throws {
    try channel.declare("q")
    for number in 0..<count {
      try channel.bind("q", to: "amq.topic", key: Name("key.\(number)"))
    }
  }

  private func turnsToDelete(_ count: Int) throws -> Int {
    try bindings(count)
    var turns = 0
    try broker.turn { _ = try channel.delete("q") }
    while broker.broker.hasChores {
      broker.turn()
      turns += 1
    }
    #expect(broker.vhost.bindings == 0)
    return turns
  }

  @Test func workThatIsUnderwayGoesOnInSmallerPieces() throws {
    let turns = try turnsToDelete(4000)
    beLong()
    let longTurns = try turnsToDelete(4000)
    #expect(longTurns > 2 * turns)
    #expect(longTurns < 200)
  }

  @Test(arguments: [(1, true, false), (300, false, false), (300, true, true)])
  func littleIsDoneAtOnceAndLessOfItInALongTurn(count: Int, isLong: Bool, waits: Bool) throws {
    try bindings(count)
    if isLong { beLong() }
    try broker.turn {
      _ = try channel.delete("q")
      #expect(broker.broker.hasChores == waits)
    }
  }

  @Test func deliveriesGoOnByAPartOfTheirBudget() throws {
    var readers: [TestClient] = []
    let body = String(repeating: "x", count: 10_000)
    for number in 0..<500 {
      let name = Name("q\(number)")
      try channel.declare(name)
      let reader = broker.connect()
      try reader.open().consume(name, isAutomatic: true)
      readers.append(reader)
    }
    beLong()
    try broker.turn {
      for number in 0..<500 { try channel.publish(body, key: Name("q\(number)")) }
    }
    let part = BrokerLimits().deliveryBytesPerTurn / 8
    var counts = [readers.reduce(0) { $0 + $1.bodies().count }]
    while broker.broker.hasChores {
      broker.turn()
      counts.append(readers.reduce(0) { $0 + $1.bodies().count })
    }
    #expect(counts.reduce(0, +) == 500)
    #expect(counts.count > 3)
    for count in counts { #expect(count * body.utf8.count <= 2 * part, "\(counts)") }
  }

  @Test func aRequestSeesWhatWasSentBeforeIt() throws {
    try channel.declare("q")
    let reader = broker.connect()
    try reader.open().consume("q", isAutomatic: true)
    for _ in 0..<80 { try channel.publish(String(repeating: "x", count: 10_000), key: "q") }
    beLong()
    broker.turn { broker.broker.pumpForRequest() }
    #expect(reader.bodies().count == 80)
  }
}
