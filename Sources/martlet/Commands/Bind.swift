import Client

/// `martlet bind` and `martlet unbind`.
enum Bind {
  private static let source = Option.argument(
    "SOURCE", as: .name, "Exchange that messages come from.")
  private static let destination = Option.argument(
    "DESTINATION", as: .name, "Queue that they go to, or exchange with --to-exchange.")
  private static let key = Option.value(
    "key", short: "k", "KEY", as: .name, default: "",
    "Routing key; for a topic exchange a pattern, where * is one word and # any number.")
  private static let toExchange = Option.flag("to-exchange", "The destination is an exchange.")
  private static let arguments = Option.fields(
    "arg", short: "a", "An argument, such as a header that a headers exchange compares,")

  static let bind = Command(
    name: "bind", summary: "let an exchange route to a queue or an exchange",
    arguments: [source, destination],
    options: [key, toExchange, FilterOption.option, arguments] + BrokerOptions.all,
    examples: [
      .init("martlet bind events jobs --key 'order.*.eu'", "By a pattern of keys."),
      .init("martlet bind events audit --to-exchange --key '#'", "Everything to an exchange."),
      .init(
        "martlet bind documents reports --arg x-match=all --arg format=pdf",
        "By a header, when \"documents\" is a headers exchange."),
      .init(
        "martlet bind logs alarms --key 'app.#' --filter 'retries > 3 OR p.priority = 9'",
        "By a pattern of keys, and a condition on a header and a property."),
    ],
    action: .asynchronous { invocation async throws(Failure) in
      let arguments = try FilterOption.adding(to: invocation[arguments], invocation)
      return try await Session.run(invocation) { session async throws(Failure) in
        try await session.ask { channel throws(ClientError) in
          try await bind(invocation, arguments, channel)
        }
        session.notes.say("bound \(words(invocation, "to"))")
        return .success
      }
    })

  static let unbind = Command(
    name: "unbind", summary: "take such a binding back",
    details: ["The key, the filter and the arguments must be those of the binding."],
    arguments: [source, destination],
    options: [key, toExchange, FilterOption.option, arguments] + BrokerOptions.all,
    examples: [
      .init("martlet unbind events jobs --key 'order.*.eu'", "Takes that one binding back.")
    ],
    action: .asynchronous { invocation async throws(Failure) in
      let arguments = try FilterOption.adding(to: invocation[arguments], invocation)
      return try await Session.run(invocation) { session async throws(Failure) in
        try await session.ask { channel throws(ClientError) in
          try await unbind(invocation, arguments, channel)
        }
        session.notes.say("unbound \(words(invocation, "from"))")
        return .success
      }
    })

  private static func bind(
    _ invocation: Invocation, _ arguments: FieldTable, _ channel: Channel
  ) async throws(ClientError) {
    if invocation[toExchange] {
      try await channel.bindExchange(
        invocation[destination], to: invocation[source], key: invocation[key],
        arguments: arguments)
    } else {
      try await channel.bindQueue(
        invocation[destination], to: invocation[source], key: invocation[key],
        arguments: arguments)
    }
  }

  private static func unbind(
    _ invocation: Invocation, _ arguments: FieldTable, _ channel: Channel
  ) async throws(ClientError) {
    if invocation[toExchange] {
      try await channel.unbindExchange(
        invocation[destination], from: invocation[source], key: invocation[key],
        arguments: arguments)
    } else {
      try await channel.unbindQueue(
        invocation[destination], from: invocation[source], key: invocation[key],
        arguments: arguments)
    }
  }

  /// `queue "jobs" to exchange "events" with key "a.b"`.
  private static func words(_ invocation: Invocation, _ preposition: String) -> String {
    let kind = invocation[toExchange] ? "exchange" : "queue"
    let key = invocation[key].isEmpty ? "" : #" with key "\#(invocation[key])""#
    return #"\#(kind) "\#(invocation[destination])" \#(preposition) "#
      + #"exchange "\#(invocation[source])"\#(key)"#
  }
}
