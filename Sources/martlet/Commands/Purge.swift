import Client

/// `martlet purge`.
enum Purge {
  private static let queue = Option.argument("QUEUE", as: .name, "Name of the queue.")

  static let command = Command(
    name: "purge", summary: "drop all messages of a queue",
    details: ["Messages that a consumer is dealing with stay."],
    arguments: [queue], options: BrokerOptions.all,
    examples: [.init("martlet purge jobs", "Empties the queue \"jobs\".")],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        let count = try await session.ask { channel throws(ClientError) in
          try await channel.purgeQueue(invocation[queue])
        }
        let messages = HumanWords.count(count, "message")
        session.notes.say(#"purged \#(messages) from queue "\#(invocation[queue])""#)
        return .success
      }
    })
}
