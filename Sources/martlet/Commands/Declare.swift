import Client

/// `martlet declare queue|exchange`.
enum Declare {
  static let command = Command(
    name: "declare", summary: "make sure that a queue or an exchange is there",
    action: .group([DeclareQueue.command, DeclareExchange.command]))

  static let durable = Option.flag("durable", short: "d", "It survives a restart of the broker.")
  static let passive = Option.flag(
    "passive", "Declare nothing, only ask whether it is there and what is in it.")
  static let arguments = Option.fields("arg", short: "a", "An argument,")
}

private enum DeclareQueue {
  private static let name = Option.argument(
    "NAME", as: .name, default: "",
    "Name of the queue; without one the broker chooses, and the name is printed.")
  private static let exclusive = Option.flag(
    "exclusive", "Only this connection may use it, so that it is gone when the command ends.")
  private static let autoDelete = Option.flag(
    "auto-delete", "It goes away with its last consumer.")

  static let command = Command(
    name: "queue", summary: "make sure that a queue is there",
    details: [
      """
      Declaring what is there already, with the same properties, changes nothing. With other \
      properties the broker refuses.
      """
    ],
    arguments: [name],
    options: [
      Declare.durable, exclusive, autoDelete, Declare.passive, Declare.arguments,
    ] + BrokerOptions.all,
    examples: [
      .init("martlet declare queue jobs --durable", "A queue that outlives restarts."),
      .init(
        "martlet declare queue recent --arg x-message-ttl=60000",
        "With an argument; what it does is the broker's (Martlet has no message TTL yet)."),
      .init(
        "martlet declare queue jobs --passive",
        "Prints the numbers of messages and consumers as JSON."),
    ],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        try await run(invocation, session)
      }
    })

  private static func run(
    _ invocation: Invocation, _ session: Session
  ) async throws(Failure) -> ExitCode {
    let queue = try await session.ask { channel throws(ClientError) in
      try await channel.declareQueue(
        invocation[name], durable: invocation[Declare.durable],
        exclusive: invocation[exclusive], autoDelete: invocation[autoDelete],
        passive: invocation[Declare.passive], arguments: invocation[Declare.arguments])
    }
    if invocation[Declare.passive] {
      var json = JSONWriter()
      json.object {
        $0.field("queue", queue.name.description)
        $0.field("messages", queue.messageCount)
        $0.field("consumers", queue.consumerCount)
      }
      Console.show(json.text + "\n")
    } else {
      if invocation[name].isEmpty { Console.show("\(queue.name)\n") }
      let messages = HumanWords.count(queue.messageCount, "message")
      let consumers = HumanWords.count(queue.consumerCount, "consumer")
      session.notes.say(#"declared queue "\#(queue.name)" (\#(messages), \#(consumers))"#)
    }
    return .success
  }
}

private enum DeclareExchange {
  private static let name = Option.argument("NAME", as: .name, "Name of the exchange.")
  private static let type = Option.required(
    "type", short: "t", "TYPE", as: .name,
    "direct, fanout, topic, headers, or another that the broker knows.")
  private static let autoDelete = Option.flag(
    "auto-delete", "It goes away with its last binding.")
  private static let isInternal = Option.flag(
    "internal", "Nobody can publish to it; it takes from other exchanges.")

  static let command = Command(
    name: "exchange", summary: "make sure that an exchange is there",
    details: [
      """
      Declaring what is there already, with the same properties, changes nothing. With other \
      properties the broker refuses.
      """
    ],
    arguments: [name],
    options: [
      type, Declare.durable, autoDelete, isInternal, Declare.passive, Declare.arguments,
    ] + BrokerOptions.all,
    examples: [
      .init(
        "martlet declare exchange events --type topic --durable",
        "An exchange that routes by patterns of keys."),
      .init(
        "martlet declare exchange events --type topic --arg alternate-exchange=unrouted",
        "What no binding matches goes to the exchange \"unrouted\"."),
    ],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        try await run(invocation, session)
      }
    })

  private static func run(
    _ invocation: Invocation, _ session: Session
  ) async throws(Failure) -> ExitCode {
    try await session.ask { channel throws(ClientError) in
      try await channel.declareExchange(
        invocation[name], type: invocation[type], durable: invocation[Declare.durable],
        autoDelete: invocation[autoDelete], internal: invocation[isInternal],
        passive: invocation[Declare.passive], arguments: invocation[Declare.arguments])
    }
    let verb = invocation[Declare.passive] ? "found" : "declared"
    session.notes.say(#"\#(verb) exchange "\#(invocation[name])" of type \#(invocation[type])"#)
    return .success
  }
}
