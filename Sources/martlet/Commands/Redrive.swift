import Client

/// `martlet redrive`: sends dead letters back to where they came from.
enum Redrive {
  static let queue = Option.argument("QUEUE", as: .name, "Queue that has the dead letters.")
  static let home = Option.flag(
    "home",
    """
    Send each message to the exchange and with the routing keys that it was first published with, or \
    into the queue where it died if that was the default exchange. This is what happens without --to.
    """)
  static let to = Option.optional(
    "to", "EXCHANGE", as: .name,
    "Send them to this exchange instead, each with the routing keys that it was first published with."
  )
  static let count = Option.optional(
    "count", short: "n", "N", as: .integer(1...(.max)),
    "Send so many. Without it, all that are ready when the command starts.")
  static let filter = Option.optional(
    "filter", "CONDITION", as: .text,
    "Only those of which this is true, such as \"kind = 'order'\"; see Specs/Filters.md.")
  static let keepsHistory = Option.flag(
    "keep-history", "Leave x-death, x-first-death-*, x-last-death-* and x-delivery-count in place.")

  static let command = Command(
    name: "redrive", summary: "send dead letters back to where they came from",
    details: [
      """
      Takes messages out of a queue that others dead-letter to, and publishes them again. Leaving and \
      arriving are one transaction: whatever fails, each message is in one place. Messages start \
      anew, without their deaths among their headers, so that they have as many tries as new ones.
      """,
      """
      Messages stay in the queue, in their places, if the condition is not true of them, if they have \
      no header x-death that says where they came from, if their exchange does not exist, or if no \
      queue takes them. All but the first are told, and the command ends with code 4.
      """,
    ],
    arguments: [queue], options: [home, to, count, filter, keepsHistory] + BrokerOptions.all,
    examples: [
      .init("martlet redrive jobs.dead", "Sends all dead letters home."),
      .init("martlet redrive jobs.dead --count 1", "Tries with the first one."),
      .init(
        "martlet redrive jobs.dead --to retries --filter 'attempts < 5 AND kind IS NOT NULL'",
        "Some of them, to another exchange."),
    ],
    exitCodes: [.empty, .undelivered, .interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      guard !invocation[home] || invocation[to] == nil else {
        throw Failure("--home and --to exclude each other", code: .usage)
      }
      let condition = try condition(invocation)
      return try await Session.run(invocation, wantsRollback: true) {
        session async throws(Failure) in
        guard session.connection.rollsBackUnroutable else {
          throw Failure(
            "this broker cannot roll back a transaction whose messages no queue takes (Martlet can); "
              + "without that, messages could be lost")
        }
        let redriving = Redriving(invocation, session, condition)
        return try await redriving.run()
      }
    })

  private static func condition(_ invocation: Invocation) throws(Failure) -> MessageFilter? {
    guard let text = invocation[filter] else { return nil }
    do throws(UsageError) {
      return try MessageFilter(text)
    } catch {
      throw Failure(error.text, code: .usage)
    }
  }
}
