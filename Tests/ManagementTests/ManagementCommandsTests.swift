import AMQP
import Base
import JSON
import Management
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests

/// Requests to the management address, and what comes back.
@Suite struct ManagementCommandsTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private static let address: Name = "amq.martlet.management"

  init() throws {
    broker = try TestBroker()
    broker.broker.management = ManagementCommands()
    client = broker.connect()
    channel = client.open()
    for queue in ["answers", "q"] as [Name] { try channel.declare(queue) }
  }

  private func publish(
    _ text: String, replyTo: Name? = "answers", isMandatory: Bool = false, large: Bool = false
  ) throws {
    var properties = BasicProperties()
    properties.replyTo = replyTo
    properties.correlationID = "7"
    let body = Array(text.utf8)
    if large {
      try channel.publishLarge(
        body, key: Self.address, properties: properties, isMandatory: isMandatory)
    } else {
      try channel.publish(
        body, key: Self.address, properties: properties, isMandatory: isMandatory)
    }
  }

  /// The next answer, once there is one.
  private func answer() throws -> JSONValue {
    broker.finishChores()
    let delivery = try #require(try channel.take("answers"))
    let properties = try BasicProperties(delivery.message.properties)
    #expect(properties.correlationID == "7" && properties.contentType == "application/json")
    return try JSONValue(delivery.message.body)
  }

  private func error(_ text: String) throws -> String {
    try broker.turn { try publish(text) }
    guard case .string(let error)? = try answer().member("error") else { return "" }
    return error
  }

  @Test func mistakesAreTold() throws {
    #expect(try error("{").hasPrefix("the request is not JSON"))
    #expect(try error("[]") == #"a request is an object with a "command""#)
    #expect(try error(#"{"command":"rout"}"#).hasSuffix(#"did you mean "route"?"#))
    #expect(try error(#"{"command":"route"}"#) == #"the "message" is missing"#)
    #expect(try error(#"{"command":"route","message":{}}"#) == #"the "body" is missing"#)
    #expect(
      try error(#"{"command":"route","message":{"exchange":"x","body":""}}"#)
        == "no exchange 'x' in vhost '/'")
  }

  @Test func tracingIsSwitchedOnAndOff() throws {
    for (request, isTraced) in [
      (#"{"command":"trace"}"#, false), (#"{"command":"trace","on":true}"#, true),
      (#"{"command":"trace"}"#, true), (#"{"command":"trace","on":false}"#, false),
    ] {
      try broker.turn { try publish(request) }
      let answer = try answer()
      #expect(answer.member("traced") == .bool(isTraced))
      #expect(answer.member("vhost") == .string("/"))
      #expect(broker.vhost.isTraced == isTraced)
    }
    #expect(
      try error(#"{"command":"trace","on":1}"#) == #""on" is neither true nor false"#)
    #expect(!broker.vhost.isTraced)
  }

  @Test func whatIsTooLargeIsNotLookedAt() throws {
    let max = BrokerLimits.managementRequestBytesMax
    let words = "a request has at most \(max) bytes"
    #expect(try error(String(repeating: " ", count: max + 1)) == words)
    #expect(try error(String(repeating: " ", count: max)) != words)
    try broker.turn { try publish(String(repeating: " ", count: 3 * max), large: true) }
    #expect(try answer().member("error") == .string(words))
  }

  /// Where nobody would get an answer, or nobody gives one, it is a message that no queue takes.
  @Test func aRequestThatNobodyAnswersComesBack() throws {
    func isReturned(replyTo: Name?) throws -> Bool {
      _ = client.events()
      try broker.turn { try publish("{}", replyTo: replyTo, isMandatory: true) }
      return client.events().contains { if case .returned = $0 { true } else { false } }
    }
    #expect(try !isReturned(replyTo: "answers"))
    #expect(try !isReturned(replyTo: "nobody"))
    #expect(try isReturned(replyTo: nil))
    #expect(try isReturned(replyTo: ""))
    broker.broker.management = nil
    #expect(try isReturned(replyTo: "answers"))
  }

  /// Answers that a full queue refuses, or that nobody takes, go; what the client publishes itself is confirmed.
  @Test func answersConcernNoPublishOfTheChannel() throws {
    let full: FieldTable = [
      "x-max-length": .int32(0), "x-overflow": .string("reject-publish"),
    ]
    try channel.declare("full", arguments: full)
    try channel.startConfirming()
    try broker.turn {
      try publish("{}", replyTo: "full")
      try channel.publish("1", key: "q")
    }
    broker.finishChores()
    broker.turn()
    let events = client.events()
    #expect(!events.contains { if case .refused = $0 { true } else { false } }, "\(events)")
    #expect(events.contains { if case .confirmed(2, _, _) = $0 { true } else { false } })
  }

  /// None is worked on before there is room for what it finds, and none is lost.
  @Test func manyRequestsAtOnceAreAllAnswered() throws {
    let clients = (0..<100).map { _ in broker.connect() }
    let channels = clients.map { $0.open() }
    var properties = BasicProperties()
    properties.replyTo = "answers"
    try broker.vhost.declare(exchange: "x", "topic")
    for number in 0..<3000 { try channel.bind("q", to: "x", key: Name("k.\(number)")) }
    broker.finishChores()
    let text = #"{"command":"route","message":{"exchange":"x","key":"k.7","body":""}}"#
    try broker.turn {
      for channel in channels {
        try channel.publish(text, key: Self.address, properties: properties)
      }
    }
    #expect(clients.contains { $0.peer.isWorking })
    broker.finishChores()
    let answers = try channel.drain("answers").map(\.text)
    #expect(answers.count == channels.count)
    #expect(Set(answers).count == 1 && answers[0].contains(#""bindings_count":3000"#))
  }

  @Test func moreRequestsThanMayWaitAreRefused() throws {
    let size = BrokerLimits.managementRequestBytesMax
    let count = BrokerLimits.managementWaitingBytesMax / size + 1
    let body = String(repeating: " ", count: size)
    let channels = (0..<count).map { _ in broker.connect().open() }
    var properties = BasicProperties()
    properties.replyTo = "answers"
    try broker.turn {
      for channel in channels {
        try channel.publish(body, key: Self.address, properties: properties)
      }
    }
    broker.finishChores()
    let answers = try channel.drain("answers").map(\.text)
    #expect(answers.count == count)
    #expect(answers.contains(#"{"error":"too many requests wait; ask again later"}"#))
    #expect(answers.contains { $0.contains("not JSON") })
    // Others are taken again.
    #expect(try error("{}") == #"a request is an object with a "command""#)
  }
}

extension ManagementCommandsTests {
  private func waiting(_ fields: String = "") throws -> [JSONValue] {
    try broker.turn { try publish(#"{"command":"delayed-list"\#(fields)}"#) }
    let json = try answer()
    guard case .array(let messages)? = json.member("messages") else {
      Issue.record("\(json)")
      return []
    }
    return messages
  }

  @Test func whatWaitsIsListedInPagesAndCancelled() throws {
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", arguments: ["x-delayed-type": .string("fanout")])
    try broker.turn {
      for number in 1...5 {
        try channel.publish(
          "12", to: "later", key: "k", headers: ["x-delay": .int32(Int32(number) * 100_000)])
      }
    }
    #expect(try waiting().count == 5)
    try broker.turn { try publish(#"{"command":"delayed-list","exchange":"later","limit":3}"#) }
    let page = try answer()
    #expect(page.member("waiting") == .number("5") && page.member("complete") == .bool(true))
    guard case .string(let next)? = page.member("next") else {
      Issue.record("there is no next page: \(page)")
      return
    }
    let rest = try waiting(#","cursor":"\#(next)""#)
    #expect(rest.count == 2)
    #expect(
      rest[0].member("bytes") == .number("2") && rest[0].member("exchange") == .string("later"))
    guard case .string(let id)? = rest[0].member("id") else {
      Issue.record("there is no id: \(rest[0])")
      return
    }
    for (count, missing) in [("1", [JSONValue]()), ("0", [.string(id)])] {
      try broker.turn { try publish(#"{"command":"delayed-cancel","ids":["\#(id)"]}"#) }
      broker.durableTurn()
      let result = try answer()
      #expect(result.member("cancelled") == .number(count))
      #expect(result.member("not_found") == .array(missing))
    }
    try broker.turn { try publish(#"{"command":"delayed-cancel","all":true}"#) }
    broker.durableTurn()
    #expect(try answer().member("cancelled") == .number("4"))
    #expect(try waiting().isEmpty)
  }

  @Test func mistakesInWhatIsSaidOfWaitingMessagesAreTold() throws {
    for (fields, expected) in [
      (#""delayed-list","limit":0"#, #""limit" is a whole number from 1 to 1000"#),
      (
        #""delayed-list","cursor":"1.2""#, #"the "cursor" is none that an answer had as its "next""#
      ),
      (#""delayed-list","queue":"q""#, #"there is no field "queue""#),
      (#""delayed-cancel""#, #"say which by "ids", "exchange" or "routing_key", or "all": true"#),
      (
        #""delayed-cancel","all":true,"ids":[]"#,
        #""all" excludes "ids", "exchange" and "routing_key""#
      ),
      (#""delayed-cancel","ids":["x"]"#, #""x" is no id of a message that waits"#),
      (#""delayed-cancel","ids":7"#, #""ids" is an array of texts, not a number"#),
    ] {
      #expect(try error(#"{"command":\#(fields)}"#) == expected)
    }
  }
}
