import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// What the broker says of a message's way, which is the way that it takes.
@Suite struct RouteExplanationTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    for queue in ["q", "r", "s"] as [Name] { try channel.declare(queue) }
  }

  private final class Answer {
    var explanation: RouteExplanation?
  }

  private func explain(
    _ exchange: Name, _ key: Name = "", headers: FieldTable? = nil, body: String = "",
    properties: BasicProperties = BasicProperties()
  ) throws -> RouteExplanation {
    let answer = Answer()
    var properties = properties
    if let headers { properties.headers = headers }
    let message = ExplainedMessage(
      exchange: exchange, key: key, properties: properties, body: Array(body.utf8))
    #expect(broker.vhost.explain(message, for: client.peer) { answer.explanation = $0 })
    while answer.explanation == nil {
      #expect(client.peer.isWorking)
      broker.turn()
    }
    return try #require(answer.explanation)
  }

  /// Destination, whether key or headers fit, filter, whether it is taken.
  private func links(_ stop: RouteExplanation.Stop) -> Set<String> {
    Set(
      stop.links.map { link in
        let filter = link.filter.map { " \($0.rawValue)" } ?? ""
        return "\(link.destination)\(link.fits ? " fits" : "")\(filter)\(link.takes ? " +" : "")"
      })
  }

  private func queues(_ explanation: RouteExplanation) -> [Name] {
    explanation.arrivals.map(\.queue).sorted { $0.description < $1.description }
  }

  @Test func anExchangeThatIsNotThereHasNoExplanation() {
    let message = ExplainedMessage(
      exchange: "none", key: "", properties: BasicProperties(), body: [])
    let isThere = broker.vhost.explain(message, for: client.peer) { _ in
      Issue.record("it was explained")
    }
    #expect(!isThere)
  }

  @Test func keysAndFiltersAreToldApart() throws {
    try broker.vhost.declare(exchange: "x", "topic")
    try channel.bind("q", to: "x", key: "a.*")
    try channel.bind("r", to: "x", key: "#", arguments: ["x-filter": .string("n > 3")])
    try channel.bind("s", to: "x", key: "b", arguments: ["x-filter": .string("n > 3")])
    var explanation = try explain("x", "a.b", headers: ["n": .int32(3)])
    #expect(links(explanation.stops[0]) == ["q fits +", "r fits false", "s false"])
    #expect(queues(explanation) == ["q"])
    explanation = try explain("x", "b", headers: ["n": .int32(4)])
    #expect(links(explanation.stops[0]) == ["q", "r fits true +", "s fits true +"])
    explanation = try explain("x", "b")
    #expect(links(explanation.stops[0]) == ["q", "r fits unknown", "s fits unknown"])
    #expect(explanation.arrivals.isEmpty && !explanation.isCut)
  }

  @Test func moreKeysFitMoreBindings() throws {
    try channel.bind("q", to: "amq.direct", key: "a")
    try channel.bind("r", to: "amq.direct", key: "b")
    try channel.bind("s", to: "amq.direct", key: "c")
    let explanation = try explain("amq.direct", "a", headers: ["BCC": .array([.string("b")])])
    #expect(links(explanation.stops[0]) == ["q fits +", "r fits +", "s"])
    #expect(queues(explanation) == ["q", "r"])
    let refused = try explain("amq.direct", "a", headers: ["CC": .int32(1)])
    guard case .refused = refused.stops[0].ending else {
      Issue.record("it is \(refused.stops[0].ending)")
      return
    }
    #expect(refused.arrivals.isEmpty)
  }

  @Test func theWayGoesOnThroughExchangesAndAlternates() throws {
    try broker.vhost.declare(exchange: "behind", "fanout")
    try broker.vhost.declare(
      exchange: "x", "headers", arguments: ["alternate-exchange": .string("behind")])
    try channel.bind("q", to: "behind")
    try channel.bind("r", to: "x", arguments: ["x-match": .string("any"), "n": .int32(1)])
    var explanation = try explain("x", headers: ["n": .int64(1)])
    #expect(explanation.stops.map(\.exchange) == ["x"])
    #expect(explanation.stops[0].alternate?.takes == false && queues(explanation) == ["r"])
    explanation = try explain("x", headers: ["n": .int64(2)])
    #expect(explanation.stops.map(\.exchange) == ["x", "behind"])
    #expect(explanation.stops[0].alternate?.takes == true)
    #expect(links(explanation.stops[0]) == ["r"])
    #expect(queues(explanation) == ["q"])
  }

  @Test func whatDoesNotGoOnIsTold() throws {
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", arguments: ["x-delayed-type": .string("fanout")])
    try channel.bind("q", to: "later")
    let later = try explain("later", headers: ["x-delay": .int32(500)])
    #expect(later.stops[0].ending == .delayed(milliseconds: 500) && later.arrivals.isEmpty)
    let past = try explain("later", headers: ["x-delay": .int32(-500)])
    #expect(past.stops[0].ending == .routed && queues(past) == ["q"])
  }

  @Test func anExchangeThatChoosesTellsTheChoiceThatRoutingMakes() throws {
    try broker.vhost.declare(exchange: "x", "x-consistent-hash")
    for queue in ["q", "r", "s"] as [Name] { try channel.bind(queue, to: "x", key: "10") }
    // Another binding of a queue that has one is not chosen with it.
    try channel.bind("q", to: "x", key: "11")
    for key in ["a", "b", "c", "d", "e"] as [Name] {
      let explanation = try explain("x", key)
      #expect(explanation.stops[0].choice == .hash && explanation.arrivals.count == 1)
      let chosen = explanation.arrivals[0].queue
      #expect(explanation.stops[0].links.filter(\.takes).map(\.destination) == [chosen])
      try broker.turn { try channel.publish("1", to: "x", key: key) }
      #expect(try channel.drain(chosen).count == 1)
    }
  }

  @Test func chanceChoosesOneOfThoseWhoseFilterIsTrue() throws {
    try broker.vhost.declare(exchange: "x", "x-random")
    try channel.bind("q", to: "x", arguments: ["x-filter": .string("n = 1")])
    try channel.bind("r", to: "x", arguments: ["x-filter": .string("n = 2")])
    let explanation = try explain("x", headers: ["n": .int32(2)])
    #expect(explanation.stops[0].choice == .chance && queues(explanation) == ["r"])
    #expect(links(explanation.stops[0]) == ["q fits false", "r fits true +"])
  }

  @Test func whatAnExchangeOrAQueueHasSeenIsToldAndNotRemembered() throws {
    try broker.vhost.declare(
      exchange: "once", "x-message-deduplication", arguments: ["x-cache-size": .int32(10)])
    try channel.declare(
      "unique", arguments: ["x-message-deduplication": .bool(true), "x-cache-size": .int32(10)])
    try channel.bind("q", to: "once")
    try channel.bind("unique", to: "amq.fanout")
    let headers: FieldTable = ["x-deduplication-header": .string("1")]
    for _ in 0..<2 {
      let first = try explain("once", headers: headers)
      #expect(first.stops[0].ending == .routed && queues(first) == ["q"])
      #expect(try explain("amq.fanout", headers: headers).arrivals.map(\.refusal) == [nil])
    }
    try broker.turn {
      try channel.publish("1", to: "once", headers: headers)
      try channel.publish("1", to: "amq.fanout", headers: headers)
    }
    let again = try explain("once", headers: headers)
    #expect(again.stops[0].ending == .repeated && again.arrivals.isEmpty)
    #expect(try explain("amq.fanout", headers: headers).arrivals.map(\.refusal) == [.repeated])
  }

  @Test func aQueueWithoutRoomIsTold() throws {
    try channel.declare(
      "small",
      arguments: ["x-max-length": .int32(1), "x-overflow": .string("reject-publish")])
    #expect(try explain("", "small").arrivals.map(\.refusal) == [nil])
    try broker.turn { try channel.publish("1", key: "small") }
    let full = try explain("", "small").arrivals
    #expect(full.map(\.refusal) == [.full] && full[0].readyCount == 1)
  }

  @Test func whatIsKeptForLaterBindingsIsTold() throws {
    try broker.vhost.declare(exchange: "x", "x-recent-history")
    #expect(try explain("x").stops[0].isKept)
    #expect(try !explain("x", headers: ["x-recent-history-no-store": .bool(true)]).stops[0].isKept)
    // It was not kept.
    try channel.bind("q", to: "x")
    #expect(try channel.drain("q").isEmpty)
  }

  @Test func whatCannotBePublishedIsRefused() throws {
    try broker.vhost.declare(exchange: "inner", "fanout", isInternal: true)
    try channel.bind("q", to: "inner")
    let inner = try explain("inner")
    guard case .refused(let reason) = inner.stops[0].ending else {
      Issue.record("it is \(inner.stops[0].ending)")
      return
    }
    #expect(reason.contains("internal") && inner.arrivals.isEmpty)
    for change in [{ $0.expiration = "soon" }, { $0.userID = "somebody" }]
      as [(inout BasicProperties) -> Void]
    {
      var properties = BasicProperties()
      change(&properties)
      let explanation = try explain("amq.fanout", properties: properties)
      guard case .refused = explanation.stops[0].ending else {
        Issue.record("it is \(explanation.stops[0].ending)")
        continue
      }
      #expect(throws: BrokerError.self) {
        try channel.publish("1", to: "amq.fanout", key: "", properties: properties)
      }
    }
  }

  /// As whoever publishes is refused then, whatever was found before.
  @Test func oneMistakeOnTheWayRefusesAll() throws {
    try broker.vhost.declare(exchange: "first", "fanout")
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", arguments: ["x-delayed-type": .string("fanout")])
    try channel.bind("q", to: "first")
    try broker.vhost.bind(exchange: "later", to: "first")
    let fine = try explain("first", headers: ["x-delay": .int32(5)])
    #expect(fine.stops.map(\.ending) == [.routed, .delayed(milliseconds: 5)])
    #expect(queues(fine) == ["q"])
    let refused = try explain("first", headers: ["x-delay": .string("soon")])
    guard case .refused = try #require(refused.stops.last).ending else {
      Issue.record("it is \(refused.stops)")
      return
    }
    #expect(refused.arrivals.isEmpty)
  }

  /// It goes over all of them, some in each turn, and those that take the message are not lost among the others.
  @Test func manyBindingsTakeManyTurns() throws {
    try broker.vhost.declare(exchange: "x", "topic")
    let count = 20_000
    for number in 0..<count { try channel.bind("q", to: "x", key: Name("k.\(number)")) }
    try channel.bind("r", to: "x", key: "#")
    let explanation = try explain("x", "k.7")
    let stop = explanation.stops[0]
    #expect(stop.bindingCount == count + 1)
    #expect(Set(stop.links.filter(\.takes).map(\.key)) == ["k.7", "#"])
    #expect(stop.links.count == BrokerLimits.explainedOthersMax + 2)
    #expect(queues(explanation) == ["q", "r"])
  }

  @Test func manyQueuesAreCut() throws {
    let count = BrokerLimits.explainedQueuesMax + 1
    for number in 0..<count {
      let queue = Name("many-\(number)")
      try channel.declare(queue)
      try channel.bind(queue, to: "amq.fanout")
    }
    let explanation = try explain("amq.fanout")
    #expect(explanation.isCut && explanation.arrivals.count == count - 1)
    #expect(explanation.stops[0].links.count == BrokerLimits.explainedTakersMax)
  }
}
