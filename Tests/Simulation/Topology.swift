import Arbitrary

/// The exchanges, queues and bindings that a run uses. They may be deleted and come back, but there
/// are no others.
final class Topology {
  enum ExchangeType: String {
    case direct, fanout, topic
  }

  struct Binding: Hashable {
    let exchange: String
    let key: String
    let queue: String
  }

  let exchanges: [String: ExchangeType] = ["xd": .direct, "xf": .fanout, "xt": .topic]
  let durableQueues: [String]
  let transientQueues: [String]
  /// Those that are there when nobody has changed anything.
  let bindings: [Binding]
  let frameMax: Int

  var queues: [String] { durableQueues + transientQueues }
  let exchangeNames = ["xd", "xf", "xt"]

  init(_ random: inout SeededGenerator) {
    durableQueues = (0..<random.number(1...4)).map { "d\($0)" }
    transientQueues = (0..<random.number(0...2)).map { "t\($0)" }
    frameMax = random.choose([4096, 16384, 131_072])
    var bindings: [Binding] = []
    for queue in durableQueues + transientQueues {
      if random.flag() { bindings.append(Binding(exchange: "xf", key: "", queue: queue)) }
      if random.flag() {
        bindings.append(Binding(exchange: "xd", key: random.choose(["a", "b"]), queue: queue))
      }
      if random.flag() {
        let pattern = random.choose(["#", "a.*", "*.b", "a.#", "#.c"])
        bindings.append(Binding(exchange: "xt", key: pattern, queue: queue))
      }
    }
    self.bindings = bindings
  }

  func isDurable(_ queue: String) -> Bool { queue.hasPrefix("d") }

  /// A place to publish to.
  func target(_ random: inout SeededGenerator) -> (exchange: String, key: String) {
    switch random.number(0...9) {
    case 0...4: ("", random.choose(queues))
    case 5...6: ("xd", random.choose(["a", "b", "c"]))
    case 7: ("xf", "any")
    default: ("xt", random.choose(["a.b", "a.c", "b.b", "x.y.c", "b.d"]))
    }
  }

  static func fits(_ type: ExchangeType, _ pattern: String, _ key: String) -> Bool {
    switch type {
    case .direct: return pattern == key
    case .fanout: return true
    case .topic:
      return fits(pattern.split(separator: ".")[...], key.split(separator: ".")[...])
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
