import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct HeadersIndexTests {
  private let broker: TestBroker
  private let kept = KeptBindings()
  private let exchange = Exchange(id: 99, name: "headers", kind: .headers, isDurable: false)

  init() throws {
    broker = try TestBroker()
  }

  private func binding(_ name: Name, _ arguments: FieldTable) throws -> Binding {
    try kept.keep(
      Binding(
        source: exchange, destination: .destination(broker.vhost.looseQueue(name)), key: name,
        arguments: arguments))
  }

  private func match(
    _ index: inout HeadersIndex, _ headers: FieldTable, stepsMax: Int = .max
  ) -> (names: [Name], steps: Int) {
    var walk = RouteWalk(mark: 1, stepsMax: stepsMax)
    let bytes = headers.encoded
    index.match(bytes.asHeaders, &walk)
    walk.forget()
    return (walk.names, walk.steps)
  }

  // MARK: The same as by definition

  private static let values: [FieldValue] = [
    .void, .bool(true), .bool(false), .int8(-1), .uint8(255), .int16(1), .uint16(1), .int32(1),
    .uint32(1), .int64(1), .int64(.max), .int64(.min), .float(1), .float(1.5), .double(1.5),
    .double(1), .double(0x1p63), .double(-0x1p63), .double(0), .double(-0.0), .float(-0.0),
    .int32(0), .double(.nan), .float(.nan), .double(.infinity), .float(.infinity),
    .decimal(scale: 0, value: 1), .decimal(scale: 1, value: 10), .string("1"), .string("x"),
    .string(""), .bytes(Array("x".utf8)), .bytes([]), .timestamp(1), .array([]),
    .array([.int32(1)]), .array([.int64(1)]), .array([.double(0)]), .array([.double(-0.0)]),
    .array([.double(.nan)]), .array([.string("x"), .void]), .table([:]), .table(["a": .int32(1)]),
    .table(["a": .float(0)]), .table(["a": .float(-0.0)]), .table(["a": .array([.float(.nan)])]),
  ]

  @Test func everyValueEqualsThoseThatTheDefinitionSays() throws {
    for wanted in Self.values {
      let arguments: FieldTable = ["h": wanted]
      let predicate = try HeadersPredicate(arguments)
      var index = HeadersIndex()
      index.add(try binding("q", arguments))
      for value in Self.values {
        let headers = try FieldTable([.init(name: "h", value: value)]).copied
        #expect(
          match(&index, headers).names.isEmpty != predicate.holds(headers),
          "\(wanted) and \(value)")
      }
    }
  }

  @Test(arguments: Seeds.all)
  func anyBindingsMatchWhatTheDefinitionSays(seed: UInt64) throws {
    var random = SeededRandom(seed)
    var index = HeadersIndex()
    var bindings: [(Binding, HeadersPredicate)] = []
    for step in 0..<300 {
      if bindings.isEmpty || random.number(0..<5) < 3 {
        let arguments = randomTable(&random, isArguments: true)
        let predicate = try HeadersPredicate(arguments)
        let new = try binding(Name("q\(step)"), arguments)
        index.add(new)
        bindings.append((new, predicate))
      } else {
        index.remove(bindings.remove(at: random.number(0..<bindings.count)).0)
      }
      for _ in 0..<4 {
        let headers = try randomTable(&random, isArguments: false).copied
        let expected = bindings.filter { $0.1.holds(headers) }.map(\.0.key).sorted()
        #expect(match(&index, headers).names == expected, "seed \(seed), step \(step), \(headers)")
      }
    }
    for (binding, _) in bindings.shuffled(using: &random) { index.remove(binding) }
    #expect(index.isEmpty, "seed \(seed): nothing is left behind")
  }

  private func randomTable(_ random: inout SeededRandom, isArguments: Bool) -> FieldTable {
    var table = FieldTable()
    if isArguments, random.isOne(in: 2) {
      let kind = random.element(["all", "any", "all-with-x", "any-with-x"])!
      table.entries.append(.init(name: "x-match", value: .string(kind)))
    }
    for _ in 0..<random.number(0..<5) {
      let name: Name = random.element(["a", "b", "c", "x-d", "x-match-not", ""])!
      // A few values of many, so that some are equal.
      let value = random.isOne(in: 4) ? random.element(Self.values)! : .int32(1)
      table.entries.append(.init(name: name, value: value))
    }
    return table
  }

  // MARK: What it costs

  @Test func thousandsOfHeadersAreLookedUpOnceEach() throws {
    var index = HeadersIndex()
    let wanted = FieldTable((0..<256).map { .init(name: Name("h\($0)"), value: .int32(1)) })
    for number in 0..<40 {
      var arguments = wanted
      arguments.entries[255] = .init(name: "h255", value: .int32(Int32(number)))
      index.add(try binding(Name("q\(number)"), arguments))
    }
    let headers = FieldTable((0..<10_000).map { .init(name: Name("h\($0)"), value: .int32(1)) })
    let (names, steps) = match(&index, headers)
    #expect(names == ["q1"])
    #expect(steps <= 10_000)
  }

  @Test func bindingsThatDoNotFitCostNothing() throws {
    var index = HeadersIndex()
    for number in 0..<10_000 {
      index.add(
        try binding(
          Name("q\(number)"), ["kind": .string("order"), "customer": .int32(Int32(number))]))
    }
    let (names, steps) = match(&index, ["kind": .string("order"), "customer": .int64(77)])
    #expect(names == ["q77"])
    #expect(steps <= 4)
    #expect(match(&index, ["kind": .string("order")]).steps <= 4)
  }

  @Test func conditionsThatAllShareAreGivenUpAtTheLimit() throws {
    var index = HeadersIndex()
    for left in 0..<50 {
      for right in 0..<50 {
        index.add(
          try binding(
            Name("q\(left).\(right)"),
            [Name("l\(left)"): .int32(1), Name("r\(right)"): .int32(1)]))
      }
    }
    let headers = FieldTable(
      (0..<50).flatMap { number -> [FieldTable.Entry] in
        [
          .init(name: Name("l\(number)"), value: .int32(1)),
          .init(name: Name("r\(number)"), value: .int32(2)),
        ]
      })
    #expect(match(&index, headers).names.isEmpty)
    let (names, steps) = match(&index, headers, stepsMax: 100)
    #expect(names.isEmpty)
    #expect(steps <= 104)
    #expect(match(&index, ["l7": .int32(1), "r9": .int32(1)]).names == ["q7.9"])
  }
}
