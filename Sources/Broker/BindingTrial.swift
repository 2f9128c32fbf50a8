import AMQP
import Base
import Filters

/// Whether bindings fit a message, one by one: for whoever is to be told why. Routing itself finds those that fit
/// together.
struct BindingTrial {
  private let vhost: VirtualHost
  private let keys: Set<Name>
  /// What a binding costs that is tried by a router of its own.
  private static let stepsPerTrial = 16

  init(keys: [Name], in vhost: VirtualHost) {
    self.vhost = vhost
    self.keys = Set(keys)
  }

  /// By the exchange's type, without the filter. What compares more than a key is tried with a router that has
  /// only this binding.
  func fits(
    _ binding: Binding, of exchange: Exchange, _ message: FilteredMessage, _ steps: inout Int
  ) -> Bool {
    switch exchange.kind {
    case .direct: return keys.contains(binding.key)
    case .fanout, .deduplication, .recentHistory, .consistentHash, .modulusHash, .random,
      .localRandom:
      return true
    case .topic, .headers: break
    }
    steps -= Self.stepsPerTrial
    let copy = Self.withoutFilter(binding, of: exchange)
    var walk = vhost.newWalk(isWithoutMessage: false)
    // Routers do not keep the bindings that they have.
    withExtendedLifetime(copy) {
      if exchange.kind == .topic {
        var trie = TopicTrie()
        trie.add(copy)
        for key in keys { trie.match(key, message, &walk) }
      } else {
        var index = HeadersIndex()
        index.add(copy)
        index.match(message, &walk)
      }
    }
    steps -= walk.steps
    return walk.hasFound
  }

  private static func withoutFilter(_ binding: Binding, of exchange: Exchange) -> Binding {
    var arguments = table(binding.arguments)
    arguments.entries.removeAll { $0.name == "x-filter" }
    do throws(BrokerError) {
      return try Binding(
        source: exchange, destination: binding.destination, key: binding.key,
        arguments: arguments)
    } catch {
      invariantFailed("a binding cannot be made again: \(error)")
    }
  }

  /// A binding's arguments.
  static func table(_ bytes: [UInt8]) -> FieldTable {
    guard !bytes.isEmpty else { return FieldTable() }
    do throws(MalformedInput) {
      var reader = ByteReader(bytes.span.bytes)
      return try reader.fieldTable()
    } catch {
      invariantFailed("a binding's arguments cannot be read: \(error.reason)")
    }
  }
}
