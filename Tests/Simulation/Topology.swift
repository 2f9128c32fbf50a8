import Arbitrary

/// The exchanges, queues and bindings that a run uses. They may be deleted and come back, but there
/// are no others.
final class Topology {
  enum ExchangeType: String {
    case direct, fanout, topic, headers
  }

  struct Binding: Hashable {
    let exchange: String
    let key: String
    /// Of a headers exchange.
    var condition: HeadersCondition?
    /// A queue or another exchange.
    let destination: String
    var isToExchange = false
  }

  /// When a queue goes by itself.
  enum Kind {
    case lasting
    /// With the connection that declared it; no other one may use it.
    case exclusive
    /// With its last consumer.
    case autoDelete
  }

  let exchanges: [String: ExchangeType]
  let durableQueues: [String]
  let transientQueues: [String]
  /// Queues that clients declare when they want them: exclusive and auto-delete ones.
  let fleetingQueues: [String]
  /// Those that are there when nobody has changed anything.
  let bindings: [Binding]
  let frameMax: Int

  var lastingQueues: [String] { durableQueues + transientQueues }
  var queues: [String] { durableQueues + transientQueues + fleetingQueues }
  let exchangeNames = ["xd", "xf", "xt", "xh", "xv"]

  private static let patterns = ["#", "a.*", "*.b", "a.#", "#.c"]
  /// Exchanges that may be bound to others; some make circles.
  private static let hops = [
    ("xd", "xf"), ("xt", "xh"), ("xf", "xv"), ("xv", "xd"), ("xh", "xt"), ("xd", "xt"),
  ]

  init(_ random: inout SeededGenerator) {
    durableQueues = (0..<random.number(1...4)).map { "d\($0)" }
    transientQueues = (0..<random.number(0...2)).map { "t\($0)" }
    fleetingQueues = ["e0", "e1", "a0", "a1", "b0"].filter { _ in random.flag() }
    frameMax = random.choose([4096, 16384, 131_072])
    let types: [String: ExchangeType] = [
      "xd": .direct, "xf": .fanout, "xt": .topic, "xh": .headers,
      "xv": random.choose([.fanout, .headers]),
    ]
    exchanges = types
    var bindings: [Binding] = []
    func bind(_ exchange: String, to destination: String, isToExchange: Bool = false) {
      var condition: HeadersCondition?
      var key = ""
      switch types[exchange]! {
      case .direct: key = random.choose(["a", "b"])
      case .fanout: break
      case .topic: key = random.choose(Self.patterns)
      case .headers: condition = .some(&random)
      }
      bindings.append(
        Binding(
          exchange: exchange, key: key, condition: condition, destination: destination,
          isToExchange: isToExchange))
    }
    for queue in durableQueues + transientQueues {
      for exchange in ["xf", "xd", "xt", "xh"] where random.flag() { bind(exchange, to: queue) }
      if random.oneIn(3) { bind("xv", to: queue) }
    }
    for queue in fleetingQueues {
      for exchange in ["xd", "xt", "xh"] where random.oneIn(3) { bind(exchange, to: queue) }
    }
    for (source, destination) in Self.hops where random.oneIn(4) {
      bind(source, to: destination, isToExchange: true)
    }
    self.bindings = bindings
  }

  func kind(_ queue: String) -> Kind {
    switch queue.first {
    case "e": .exclusive
    case "a", "b": .autoDelete
    default: .lasting
    }
  }

  func isDurable(_ queue: String) -> Bool { queue.hasPrefix("d") || queue.hasPrefix("a") }

  /// It tells how often a message came back.
  func countsDeliveries(_ queue: String) -> Bool { ["d0", "t0", "a0", "e1"].contains(queue) }

  func isDurable(exchange: String) -> Bool { exchange != "xv" }

  /// A binding survives when both of its ends do.
  func isDurable(_ binding: Binding) -> Bool {
    isDurable(exchange: binding.exchange)
      && (binding.isToExchange
        ? isDurable(exchange: binding.destination) : isDurable(binding.destination))
  }

  /// A place to publish to.
  func target(_ random: inout SeededGenerator) -> (exchange: String, key: String) {
    switch random.number(0...12) {
    case 0...4: ("", random.choose(lastingQueues))
    case 5: ("", random.choose(queues))
    case 6...7: ("xd", random.choose(["a", "b", "c"]))
    case 8: ("xf", "any")
    case 9...10: ("xh", random.choose(["a", "a.b"]))
    case 11: ("xv", random.choose(["a", "b"]))
    default: ("xt", random.choose(["a.b", "a.c", "b.b", "x.y.c", "b.d"]))
    }
  }

  func fits(_ binding: Binding, key: String, headers: [Header]) -> Bool {
    switch exchanges[binding.exchange]! {
    case .direct: binding.key == key
    case .fanout: true
    case .topic:
      Self.fits(binding.key.split(separator: ".")[...], key.split(separator: ".")[...])
    case .headers: binding.condition?.holds(headers) ?? true
    }
  }

  private static func fits(
    _ pattern: ArraySlice<Substring>, _ key: ArraySlice<Substring>
  ) -> Bool {
    guard let first = pattern.first else { return key.isEmpty }
    if first == "#" {
      return (0...key.count).contains { fits(pattern.dropFirst(), key.dropFirst($0)) }
    }
    guard let word = key.first, first == "*" || first == word else { return false }
    return fits(pattern.dropFirst(), key.dropFirst())
  }
}
