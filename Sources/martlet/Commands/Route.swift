import Client
import JSON

/// `martlet route`: explains where a message would go.
enum Route {
  private static let exchange = Option.argument(
    "EXCHANGE", as: .name, "Exchange that it would be published to; '' is the default one.")
  private static let key = Option.argument("KEY", as: .name, default: "", "Its routing key.")
  private static let body = Option.value(
    "body", short: "b", "TEXT", as: .text, default: "", "Its body, for filters that look at it.")
  private static let json = Option.flag("json", "Print the broker's answer as a line of JSON.")

  static let command = Command(
    name: "route", summary: "explain where a message would go, and why",
    details: [
      """
      Asks the broker what it would make of a message, and publishes none: each exchange on its way, \
      each binding there, whether its key or its headers fit and what its filter says, and the queues \
      at the end. Bindings that take the message are marked with +, others with -.
      """,
      "Ends with code 4 if no queue would take the message. Only Martlet answers this.",
    ],
    arguments: [exchange, key], options: [body, json] + PropertyOptions.all + BrokerOptions.all,
    examples: [
      .init("martlet route events order.new.eu", "By its routing key."),
      .init(
        "martlet route events order.new.eu --header retries=4 --body 'timed out'",
        "With what filters look at."),
    ],
    exitCodes: [.undelivered, .interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try PropertyOptions.check(invocation)
      return try await Session.run(invocation) { session async throws(Failure) in
        let line = try await session.openManagement()
        let answer = try await line.ask("route") { write(invocation, into: &$0) }
        if invocation[json] {
          var line = JSONWriter()
          line.value(answer)
          Console.show(line.text + "\n")
        } else {
          Console.show(RouteText(answer).lines.joined(separator: "\n") + "\n")
        }
        return answer.reachesSomebody ? .success : .undelivered
      }
    })

  private static func write(_ invocation: Invocation, into json: inout JSONWriter) {
    json.key("message")
    json.object { json in
      MessageJSON.write("exchange", invocation[exchange], into: &json)
      MessageJSON.write("key", invocation[key], into: &json)
      MessageJSON.write(PropertyOptions.properties(invocation), into: &json)
      json.field("body", invocation[body])
    }
  }
}

extension JSONValue {
  /// A message that waits for its time may reach queues then.
  fileprivate var reachesSomebody: Bool {
    elements("queues").contains { $0.text("refuses") == nil }
      || elements("exchanges").contains { $0.text("ending") == "delayed" }
  }
}

/// The explanation of a route for people.
struct RouteText {
  private(set) var lines: [String] = []

  init(_ answer: JSONValue) {
    for exchange in answer.elements("exchanges") { add(exchange) }
    let queues = answer.elements("queues")
    lines.append(
      queues.isEmpty
        ? "reaches no queue" : "reaches \(HumanWords.count(queues.count, "queue")):")
    for queue in queues {
      let ready = HumanWords.count(queue.number("messages_ready"), "message")
      let consumers = HumanWords.count(queue.number("consumers"), "consumer")
      let line = "  \(queue.text("name") ?? "") (\(ready) ready, \(consumers))"
      switch queue.text("refuses") {
      case "full": lines.append(line + ": refuses it, since it is full")
      case "repeated": lines.append(line + ": drops it, since it had such a message lately")
      default: lines.append(line)
      }
    }
    if !answer.flag("complete") { lines.append("  and more that are not listed") }
  }

  private mutating func add(_ exchange: JSONValue) {
    let name = exchange.text("name") ?? ""
    let title = name.isEmpty ? "the default exchange" : #"exchange "\#(name)""#
    let count = exchange.number("bindings_count")
    let kind = "\(exchange.text("type") ?? "")\(exchange.flag("internal") ? ", internal" : "")"
    let bindings = name.isEmpty ? "" : ", \(HumanWords.count(count, "binding"))"
    lines.append("\(title) (\(kind))\(bindings)")
    switch exchange.text("ending") {
    case "delayed":
      let delay = HumanWords.grouped(exchange.number("delay"))
      lines.append("  waits here for \(delay) ms, and is routed then")
      return
    case "repeated":
      lines.append("  was seen before, and is dropped")
      return
    case "refused":
      lines.append("  is refused: \(exchange.text("reason") ?? "")")
      return
    default: break
    }
    if exchange.flag("kept") { lines.append("  is kept for what will be bound here") }
    let choice = exchange.text("goes_to")
    if choice == "one_by_hash" { lines.append("  goes to one of the bindings, by a hash") }
    if choice == "one_by_chance" { lines.append("  goes to one of the bindings, by chance: now") }
    let listed = exchange.elements("bindings")
    for binding in listed { lines.append("  " + Self.line(binding)) }
    if !name.isEmpty, count > listed.count {
      lines.append("  and \(HumanWords.count(count - listed.count, "binding")) more")
    }
    if name.isEmpty, listed.isEmpty { lines.append("  - no queue has this name") }
    if let alternate = exchange.member("alternate") {
      lines.append("  " + Self.line(alternate: alternate))
    }
  }

  private static func line(alternate: JSONValue) -> String {
    let name = alternate.text("exchange") ?? ""
    let line = #"exchange "\#(name)" (alternate-exchange)"#
    if alternate.flag("taken") { return "+ \(line), since no binding takes it" }
    return "- \(line)" + (alternate.flag("exists") ? "" : ": there is none")
  }

  /// `+ queue "jobs", key "order.#", filter "retries > 3"`.
  private static func line(_ binding: JSONValue) -> String {
    let isTaken = binding.flag("taken")
    var line = isTaken ? "+ " : "- "
    line += binding.text("destination_type") ?? ""
    line += #" "\#(binding.text("destination") ?? "")""#
    if let key = binding.text("routing_key"), !key.isEmpty { line += #", key "\#(key)""# }
    var filter: String?
    if case .object(let members)? = binding.member("arguments") {
      for member in members {
        var json = JSONWriter()
        json.value(member.value)
        if member.name == "x-filter", case .string(let text) = member.value {
          filter = text
        } else {
          line += ", \(member.name)=\(json.text)"
        }
      }
    }
    if let filter { line += #", filter "\#(filter)""# }
    if isTaken { return line }
    if !binding.flag("fits") { return line + ": does not fit" }
    if let truth = binding.text("filter"), truth != "true" { return line + ": filter \(truth)" }
    return line + ": another one is chosen"
  }
}
