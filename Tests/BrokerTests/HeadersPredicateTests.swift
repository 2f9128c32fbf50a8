import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct HeadersPredicateTests {
  /// What the index and the definition say; they must agree.
  private func holds(_ arguments: FieldTable, _ headers: FieldTable) throws -> Bool {
    let broker = try TestBroker()
    let exchange = Exchange(id: 99, name: "headers", kind: .headers, isDurable: false)
    let kept = KeptBindings()
    let binding = try kept.keep(
      Binding(
        source: exchange, destination: .destination(broker.vhost.looseQueue("q")), key: "",
        arguments: arguments))
    var index = HeadersIndex()
    index.add(binding)
    var walk = RouteWalk.first
    let bytes = headers.encoded
    index.match(bytes.asHeaders, &walk)
    let isFound = walk.hasFound
    index.remove(binding)
    #expect(try HeadersPredicate(arguments).holds(headers) == isFound, "\(arguments), \(headers)")
    return isFound
  }

  @Test func allConditionsMustHoldByDefault() throws {
    let arguments: FieldTable = ["a": .int32(1), "b": .string("x")]
    #expect(try holds(arguments, ["a": .int32(1), "b": .string("x"), "c": .bool(true)]))
    #expect(try !holds(arguments, ["a": .int32(1)]))
    #expect(try !holds(arguments, ["a": .int32(1), "b": .string("y")]))
    let said: FieldTable = ["x-match": .string("all"), "a": .int32(1)]
    #expect(try holds(said, ["a": .int32(1)]))
    #expect(try !holds(said, [:]))
  }

  @Test func anyConditionIsEnoughWhenAsked() throws {
    let arguments: FieldTable = ["x-match": .string("any"), "a": .int32(1), "b": .string("x")]
    #expect(try holds(arguments, ["b": .string("x")]))
    #expect(try holds(arguments, ["a": .int32(1), "b": .string("y")]))
    #expect(try !holds(arguments, ["a": .int32(2), "b": .string("y")]))
    #expect(try !holds(arguments, [:]))
  }

  @Test func withoutConditionsAllFitsAndAnyDoesNot() throws {
    #expect(try holds([:], ["a": .int32(1)]))
    #expect(try holds([:], [:]))
    #expect(try !holds(["x-match": .string("any")], ["a": .int32(1)]))
  }

  @Test func privateHeadersCountOnlyWhenAsked() throws {
    let headers: FieldTable = ["x-kind": .string("red"), "a": .int32(1)]
    #expect(try holds(["x-kind": .string("blue"), "a": .int32(1)], headers))
    #expect(
      try !holds(
        ["x-match": .string("all-with-x"), "x-kind": .string("blue"), "a": .int32(1)], headers))
    #expect(
      try holds(["x-match": .string("all-with-x"), "x-kind": .string("red")], headers))
    #expect(
      try holds(["x-match": .string("any-with-x"), "x-kind": .string("red")], headers))
    #expect(try !holds(["x-match": .string("any"), "x-kind": .string("red")], headers))
  }

  @Test func aConditionWithoutValueAsksForPresence() throws {
    #expect(try holds(["a": .void], ["a": .string("whatever")]))
    #expect(try holds(["a": .void], ["a": .void]))
    #expect(try !holds(["a": .void], ["b": .void]))
    #expect(try !holds(["a": .int32(1)], ["a": .void]))
  }

  @Test func numbersAreComparedByValueWhateverTheirWidth() throws {
    let fives: [FieldValue] = [
      .int8(5), .uint8(5), .int16(5), .uint16(5), .int32(5), .uint32(5), .int64(5), .float(5),
      .double(5),
    ]
    for left in fives {
      for right in fives { #expect(try holds(["n": left], ["n": right]), "\(left), \(right)") }
      #expect(try !holds(["n": left], ["n": .int64(6)]))
      #expect(try !holds(["n": left], ["n": .double(5.5)]))
      #expect(try !holds(["n": left], ["n": .string("5")]))
      #expect(try !holds(["n": left], ["n": .bool(true)]))
    }
    #expect(try holds(["n": .int8(-1)], ["n": .int64(-1)]))
    #expect(try !holds(["n": .int8(-1)], ["n": .uint8(255)]))
  }

  @Test func largeNumbersAreNotTakenForTheirNeighbours() throws {
    let large: Int64 = 1 << 53
    #expect(try !holds(["n": .int64(large)], ["n": .int64(large + 1)]))
    #expect(try !holds(["n": .int64(.max)], ["n": .int64(.max - 1)]))
    #expect(try holds(["n": .int64(large)], ["n": .double(Double(large))]))
    #expect(try !holds(["n": .int64(large + 1)], ["n": .double(Double(large))]))
    #expect(try !holds(["n": .int64(.max)], ["n": .double(0x1p63)]))
  }

  @Test func aHeaderThatStandsTwiceCountsOnce() throws {
    let twice = FieldTable([
      .init(name: "a", value: .int32(1)), .init(name: "a", value: .int32(2)),
    ])
    #expect(try holds(["a": .int32(1)], twice))
    #expect(try !holds(["a": .int32(2)], twice))
    #expect(try holds(twice, ["a": .int32(1)]))
  }

  @Test func otherKindsOfMatchingAreRefused() {
    let error = mistake { _ = try HeadersPredicate(["x-match": .string("some")]) }
    #expect(
      error
        == .refusedArgument(
          "x-match", of: .binding, reason: "expected all, any, all-with-x or any-with-x, got some"))
    let wrongType = mistake { _ = try HeadersPredicate(["x-match": .int32(1)]) }
    #expect(
      wrongType
        == .refusedArgument(
          "x-match", of: .binding,
          reason: "expected all, any, all-with-x or any-with-x, got signedint"))
  }
}
