import Client

/// `martlet delete queue|exchange`.
enum Delete {
  static let command = Command(
    name: "delete", summary: "delete a queue or an exchange",
    action: .group([queue, exchange]))

  private static let missing =
    "Deleting what is not there is no error, so that it can be repeated; it is told."

  private static let queueName = Option.argument("NAME", as: .name, "Name of the queue.")
  private static let exchangeName = Option.argument("NAME", as: .name, "Name of the exchange.")
  private static let ifUnused = Option.flag(
    "if-unused", "Only if a queue has no consumer, or an exchange no binding.")
  private static let ifEmpty = Option.flag("if-empty", "Only if no message is in it.")

  private static let queue = Command(
    name: "queue", summary: "delete a queue with its messages",
    details: [Delete.missing],
    arguments: [queueName], options: [ifUnused, ifEmpty] + BrokerOptions.all,
    examples: [
      .init("martlet delete queue jobs --if-unused --if-empty", "Only if nobody misses it.")
    ],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        let name = invocation[queueName]
        guard
          try await session.exists({ channel async throws(ClientError) in
            _ = try await channel.declareQueue(name, passive: true)
          })
        else {
          session.notes.say(#"there is no queue "\#(name)""#)
          return .success
        }
        let count = try await session.ask { channel throws(ClientError) in
          try await channel.deleteQueue(
            name, ifUnused: invocation[ifUnused], ifEmpty: invocation[ifEmpty])
        }
        let messages = count == 0 ? "" : " with \(HumanWords.count(count, "message"))"
        session.notes.say(#"deleted queue "\#(name)"\#(messages)"#)
        return .success
      }
    })

  private static let exchange = Command(
    name: "exchange", summary: "delete an exchange with its bindings",
    details: [Delete.missing],
    arguments: [exchangeName], options: [ifUnused] + BrokerOptions.all,
    examples: [.init("martlet delete exchange events", "Its bindings go with it.")],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        let name = invocation[exchangeName]
        guard
          try await session.exists({ channel async throws(ClientError) in
            try await channel.declareExchange(name, type: "direct", passive: true)
          })
        else {
          session.notes.say(#"there is no exchange "\#(name)""#)
          return .success
        }
        try await session.ask { channel throws(ClientError) in
          try await channel.deleteExchange(name, ifUnused: invocation[ifUnused])
        }
        session.notes.say(#"deleted exchange "\#(name)""#)
        return .success
      }
    })
}
