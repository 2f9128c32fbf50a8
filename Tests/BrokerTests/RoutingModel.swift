import AMQP
import Base

@testable import Broker

/// A virtual host's table as sets, and routing by definition.
struct RoutingModel {
  struct ExchangeRow {
    var type: Name
    var isDurable: Bool
    var isAutoDelete: Bool
    var alternate: Name?
  }

  enum End: Hashable {
    case queue(Name)
    case exchange(Name)
  }

  struct Row: Hashable {
    var source: Name
    var destination: End
    var key: Name
    /// Asks for the header `n` with this value; nil for no arguments.
    var wanted: Int32?
  }

  private(set) var exchanges: [Name: ExchangeRow] = [:]
  /// Whether each is durable.
  private(set) var queues: [Name: Bool] = [:]
  private(set) var rows: Set<Row> = []

  mutating func declare(queue: Name, isDurable: Bool) { queues[queue] = isDurable }

  mutating func declare(exchange: Name, _ row: ExchangeRow) { exchanges[exchange] = row }

  mutating func bind(_ row: Row) { rows.insert(row) }

  mutating func unbind(_ row: Row) {
    if rows.remove(row) != nil { left(row.source) }
  }

  mutating func delete(queue: Name) {
    guard queues.removeValue(forKey: queue) != nil else { return }
    removeRows(to: .queue(queue))
  }

  mutating func delete(exchange: Name) {
    guard exchanges.removeValue(forKey: exchange) != nil else { return }
    rows = rows.filter { $0.source != exchange }
    removeRows(to: .exchange(exchange))
  }

  private mutating func removeRows(to end: End) {
    let gone = rows.filter { $0.destination == end }
    rows.subtract(gone)
    for source in Set(gone.map(\.source)) { left(source) }
  }

  /// A binding from the exchange is gone, perhaps the last.
  private mutating func left(_ source: Name) {
    guard exchanges[source]?.isAutoDelete == true, !rows.contains(where: { $0.source == source })
    else { return }
    delete(exchange: source)
  }

  /// The broker begins again: what is durable remains, and bindings between such.
  mutating func restart() {
    exchanges = exchanges.filter(\.value.isDurable)
    queues = queues.filter(\.value)
    let (exchanges, queues) = (exchanges, queues)
    rows = rows.filter { row in
      guard exchanges[row.source] != nil || row.source.hasPrefix("amq.") else { return false }
      return switch row.destination {
      case .queue(let name): queues[name] != nil
      case .exchange(let name): exchanges[name] != nil
      }
    }
  }

  // MARK: Routing

  func route(_ exchange: Name, _ keys: [Name], header: Int32?) -> Set<Name> {
    var visited: Set<Name> = []
    var found: Set<Name> = []
    walk(exchange, keys, header, &visited, &found)
    return found
  }

  private func walk(
    _ exchange: Name, _ keys: [Name], _ header: Int32?, _ visited: inout Set<Name>,
    _ found: inout Set<Name>
  ) {
    guard let row = exchanges[exchange], visited.insert(exchange).inserted else { return }
    let fitting = rows.filter { $0.source == exchange && fits($0, row.type, keys, header) }
    for row in fitting {
      switch row.destination {
      case .queue(let name): found.insert(name)
      case .exchange(let name): walk(name, keys, header, &visited, &found)
      }
    }
    if fitting.isEmpty, let alternate = row.alternate {
      walk(alternate, keys, header, &visited, &found)
    }
  }

  private func fits(_ row: Row, _ type: Name, _ keys: [Name], _ header: Int32?) -> Bool {
    switch type {
    case "fanout": true
    case "direct": keys.contains(row.key)
    case "topic": keys.contains { NaiveTopic.fits(row.key, $0) }
    default: row.wanted == nil || row.wanted == header
    }
  }
}
