import Client
import Testing

@testable import martlet

/// Where a dead letter goes home to.
@Suite struct DeadLetterOriginTests {
  private func death(
    _ queue: String, _ reason: String = "rejected", exchange: String = "events",
    keys: [String]? = ["a.b"]
  ) -> FieldValue {
    var table: FieldTable = [
      "count": .int64(1), "reason": .string(reason), "queue": .string(queue),
      "exchange": .string(exchange),
    ]
    if let keys {
      let values = keys.map { FieldValue.string($0) }
      table.entries.append(.init(name: "routing-keys", value: .array(values)))
    }
    return .table(table)
  }

  private func headers(
    _ deaths: [FieldValue], first: (queue: String, reason: String)? = nil
  ) -> FieldTable {
    var table: FieldTable = ["x-death": .array(deaths)]
    if let first {
      table.entries.append(.init(name: "x-first-death-queue", value: .string(first.queue)))
      table.entries.append(.init(name: "x-first-death-reason", value: .string(first.reason)))
    }
    return table
  }

  private func origin(_ headers: FieldTable?) -> String? {
    DeadLetterOrigin(headers).map { "\($0.exchange): \($0.keys.map(\.description))" }
  }

  @Test func homeIsWhereItWasFirstPublished() {
    let deaths = [
      death("retry", "expired", exchange: "dlx", keys: ["r"]), death("jobs", keys: ["a.b", "c"]),
    ]
    #expect(origin(headers(deaths)) == #"events: ["a.b", "c"]"#)
    // The same death has come again, and moved its entry to the front.
    let again = Array(deaths.reversed())
    #expect(origin(headers(again, first: ("jobs", "rejected"))) == #"events: ["a.b", "c"]"#)
    #expect(origin(headers(again, first: ("jobs", "expired"))) == #"dlx: ["r"]"#)
  }

  @Test func whatCameByTheDefaultExchangeGoesToItsQueueAlone() {
    let headers = headers([death("jobs", exchange: "", keys: ["jobs", "copy"])])
    #expect(origin(headers) == #": ["jobs"]"#)
  }

  @Test func headersThatDoNotTellHaveNoOrigin() {
    #expect(origin(nil) == nil)
    #expect(origin([:]) == nil)
    #expect(origin(["x-death": .string("jobs")]) == nil)
    #expect(origin(["x-death": .array([])]) == nil)
    #expect(origin(["x-death": .array([.int32(1)])]) == nil)
    #expect(origin(headers([death("jobs", keys: nil)])) == nil)
    #expect(origin(headers([death("jobs", keys: [])])) == nil)
    #expect(origin(headers([death("jobs", exchange: String(repeating: "x", count: 256))])) == nil)
  }

  @Test func messagesStartAnew() throws {
    var table = headers([death("jobs", keys: ["a", "b", "c"])], first: ("jobs", "rejected"))
    for (name, value) in [
      ("x-last-death-queue", FieldValue.string("jobs")), ("x-delivery-count", .int64(3)),
      ("CC", .array([.string("old")])), ("kind", .string("order")),
    ] as [(Name, FieldValue)] {
      table.entries.append(.init(name: name, value: value))
    }
    var properties = BasicProperties()
    properties.headers = table
    properties.messageID = "m"
    let origin = try #require(DeadLetterOrigin(table))
    let anew = origin.properties(properties, keepingHistory: false)
    #expect(
      anew.headers == ["kind": .string("order"), "CC": .array([.string("b"), .string("c")])])
    #expect(anew.messageID == "m")
    let kept = try #require(origin.properties(properties, keepingHistory: true).headers)
    #expect(kept["x-death"] == table["x-death"] && kept["x-delivery-count"] == .int64(3))
    #expect(kept["CC"] == .array([.string("b"), .string("c")]))
  }

  @Test func noHeadersAreLeftOfWhatOnlyHadDeaths() throws {
    var properties = BasicProperties()
    properties.headers = headers([death("jobs")])
    let origin = try #require(DeadLetterOrigin(properties.headers))
    #expect(origin.properties(properties, keepingHistory: false).headers == nil)
  }
}
