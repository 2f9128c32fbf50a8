import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Random changes of the table, with crashes and restarts between them, each followed by publishes
/// whose queues a model names.
@Suite struct RoutingModelTests {
  private static let exchanges: [Name] = ["x1", "x2", "x3", "x4", "x5"]
  private static let queues: [Name] = ["q1", "q2", "q3", "q4"]
  private static let keys: [Name] = ["", "a", "b", "a.b", "a.a", "b.a.b"]
  private static let patterns: [Name] = keys + ["#", "*", "a.*", "#.b", "*.#", "#.a.#"]

  @Test(arguments: Seeds.all)
  func everyPublishReachesTheQueuesThatTheModelNames(seed: UInt64) throws {
    var run = Run(broker: try TestBroker(), random: SeededRandom(seed))
    for step in 1...600 {
      try run.change()
      if step.isMultiple(of: 60) { try run.restart(inOrder: step.isMultiple(of: 120)) }
      for _ in 0..<3 { try run.publish("seed \(seed), step \(step)") }
      let vhost = run.broker.vhost
      #expect(vhost.bindings == run.model.rows.count, "seed \(seed), step \(step)")
      let names = Set(vhost.exchanges.keys.filter { $0.hasPrefix("x") })
      #expect(names == Set(run.model.exchanges.keys), "seed \(seed), step \(step)")
    }
    for name in Self.queues { try run.channel.delete(name) }
    for name in Self.exchanges { try run.broker.vhost.delete(exchange: name) }
    #expect(run.broker.vhost.bindings == 0)
    run.broker.expectNothingHeld()
  }

  private struct Run {
    private(set) var broker: TestBroker
    private(set) var channel: Channel
    private var other: Channel
    private var random: SeededRandom
    private(set) var model = RoutingModel()

    init(broker: TestBroker, random: SeededRandom) {
      self.broker = broker
      self.random = random
      let client = broker.connect()
      channel = client.open(1)
      other = client.open(2)
    }

    mutating func restart(inOrder: Bool) throws {
      if inOrder {
        broker = try broker.restarted()
      } else {
        broker.quietTurn()
        broker = try broker.crashed()
      }
      let client = broker.connect()
      channel = client.open(1)
      other = client.open(2)
      model.restart()
    }

    private var vhost: VirtualHost { broker.vhost }

    mutating func change() throws {
      let exchange = random.element(exchanges)!
      let queue = random.element(queues)!
      switch random.number(0..<12) {
      case 0, 1: try declare(exchange)
      case 2:
        guard model.queues[queue] == nil else { return }
        let isDurable = random.isOne(in: 2)
        try channel.declare(queue, isDurable: isDurable)
        model.declare(queue: queue, isDurable: isDurable)
      case 3 where random.isOne(in: 3):
        try vhost.delete(exchange: exchange)
        model.delete(exchange: exchange)
      case 4 where random.isOne(in: 3):
        try channel.delete(queue)
        model.delete(queue: queue)
      case 3...8: try bind(randomRow())
      default: try unbind(random.element(model.rows.sorted { "\($0)" < "\($1)" }) ?? randomRow())
      }
    }

    private mutating func declare(_ name: Name) throws {
      guard model.exchanges[name] == nil else { return }
      let row = RoutingModel.ExchangeRow(
        type: random.element(["direct", "fanout", "topic", "headers"])!,
        isDurable: random.isOne(in: 2), isAutoDelete: random.isOne(in: 3),
        alternate: random.isOne(in: 3) ? random.element(exchanges)! : nil)
      try vhost.declare(
        exchange: name, row.type, isDurable: row.isDurable, isAutoDelete: row.isAutoDelete,
        arguments: row.alternate.map { ["alternate-exchange": .string($0.description)] } ?? [:])
      model.declare(exchange: name, row)
    }

    private mutating func randomRow() -> RoutingModel.Row {
      RoutingModel.Row(
        source: random.element(exchanges)!,
        destination: random.isOne(in: 3)
          ? .exchange(random.element(exchanges)!) : .queue(random.element(queues)!),
        key: random.element(patterns)!, wanted: random.element([nil, 1, 2])!)
    }

    private func arguments(_ row: RoutingModel.Row) -> FieldTable {
      row.wanted.map { ["n": .int32($0)] } ?? [:]
    }

    private mutating func bind(_ row: RoutingModel.Row) throws {
      guard model.exchanges[row.source] != nil else { return }
      switch row.destination {
      case .queue(let name):
        guard model.queues[name] != nil else { return }
        try channel.bind(name, to: row.source, key: row.key, arguments: arguments(row))
      case .exchange(let name):
        guard model.exchanges[name] != nil else { return }
        try vhost.bind(exchange: name, to: row.source, key: row.key, arguments: arguments(row))
      }
      model.bind(row)
    }

    private mutating func unbind(_ row: RoutingModel.Row) throws {
      switch row.destination {
      case .queue(let name):
        try channel.unbind(name, from: row.source, key: row.key, arguments: arguments(row))
      case .exchange(let name):
        try vhost.unbind(exchange: name, from: row.source, key: row.key, arguments: arguments(row))
      }
      model.unbind(row)
    }

    /// A few publishes alike, on two channels, with and without more keys and a header.
    mutating func publish(_ comment: Comment) throws {
      let exchange = random.element(exchanges)!
      let key = random.element(keys)!
      let header = random.element([nil, 1, 2] as [Int32?])!
      let more = random.isOne(in: 4) ? random.element(keys)! : nil
      let expected = model.route(exchange, [key] + (more.map { [$0] } ?? []), header: header)
      var headers: FieldTable = header.map { ["n": .int32($0)] } ?? [:]
      if let more {
        headers.entries.append(.init(name: "CC", value: .array([.string(more.bytes)])))
      }
      for publisher in [channel, other, channel] {
        let error = mistake {
          if headers.isEmpty {
            try publisher.publish("m", to: exchange, key: key, isPersistent: random.isOne(in: 2))
          } else {
            try publisher.publish("m", to: exchange, key: key, headers: headers)
          }
        }
        let isThere = model.exchanges[exchange] != nil
        #expect(error == (isThere ? nil : .notFound(.exchange(exchange, in: "/"))), comment)
      }
      for name in queues where model.queues[name] != nil {
        let (count, _) = try vhost.purgeQueue(name, on: channel)
        #expect(count == (expected.contains(name) ? 3 : 0), comment)
      }
    }
  }
}
