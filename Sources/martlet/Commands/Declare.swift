import Client
import JSON

/// `martlet declare queue|exchange`.
enum Declare {
  static let command = Command(
    name: "declare", summary: "make sure that a queue or an exchange is there",
    action: .group([DeclareQueue.command, DeclareExchange.command]))

  static let durable = Option.flag("durable", short: "d", "It survives a restart of the broker.")
  static let passive = Option.flag(
    "passive", "Declare nothing, only ask whether it is there; exit code 1 if not.")
  static let arguments = Option.fields("arg", short: "a", "An argument,")

  /// The broker does not look at what else a passive declaration says: nobody shall believe it did.
  static func checkPassive(
    _ invocation: Invocation, _ flags: [Option<Bool>]
  ) throws(Failure) {
    guard invocation[passive] else { return }
    let given = flags.filter { invocation[$0] }.map { "--\($0.parameter.name)" }
    let all = given + (invocation[arguments].entries.isEmpty ? [] : ["--arg"])
    guard !all.isEmpty else { return }
    throw Failure(
      "--passive only asks whether it is there: \(all.joined(separator: ", ")) would not be looked at",
      code: .usage)
  }
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
      try Declare.checkPassive(invocation, [Declare.durable, exclusive, autoDelete])
      if invocation[Declare.passive], invocation[name].isEmpty {
        throw Failure("NAME is missing: --passive asks for a queue by its name", code: .usage)
      }
      return try await Session.run(invocation) { session async throws(Failure) in
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
  private static let type = Option.optional(
    "type", short: "t", "TYPE", as: .name,
    """
    direct, fanout, topic, headers, x-consistent-hash, x-modulus-hash, x-random, x-local-random, \
    x-message-deduplication, x-recent-history, or another that the broker knows. Needed unless --passive.
    """)
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
      .init(
        "martlet declare exchange orders --type x-consistent-hash --arg hash-header=customer",
        "Each customer's messages go to one of the queues; bind them with a weight as --key."),
      .init("martlet declare exchange events --passive", "Asks whether it is there."),
    ],
    action: .asynchronous { invocation async throws(Failure) in
      try Declare.checkPassive(invocation, [Declare.durable, autoDelete, isInternal])
      switch (invocation[type], invocation[Declare.passive]) {
      case (nil, false): throw Failure("--type TYPE is missing", code: .usage)
      case (_?, true):
        throw Failure(
          "--passive only asks whether it is there: --type would not be looked at", code: .usage)
      case (nil, true), (_?, false): break
      }
      return try await Session.run(invocation) { session async throws(Failure) in
        try await run(invocation, session)
      }
    })

  private static func run(
    _ invocation: Invocation, _ session: Session
  ) async throws(Failure) -> ExitCode {
    try await session.ask { channel throws(ClientError) in
      try await channel.declareExchange(
        invocation[name], type: invocation[type] ?? "", durable: invocation[Declare.durable],
        autoDelete: invocation[autoDelete], internal: invocation[isInternal],
        passive: invocation[Declare.passive], arguments: invocation[Declare.arguments])
    }
    if let type = invocation[type] {
      session.notes.say(#"declared exchange "\#(invocation[name])" of type \#(type)"#)
    } else {
      session.notes.say(#"exchange "\#(invocation[name])" is there"#)
    }
    return .success
  }
}
