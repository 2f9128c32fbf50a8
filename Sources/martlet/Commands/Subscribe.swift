import Client
import Server

/// `martlet subscribe`: prints messages as they come.
enum Subscribe {
  static let queue = Option.argument(
    "QUEUE", as: .name, default: "", "Name of the queue; not together with --exchange.")
  static let exchange = Option.optional(
    "exchange", short: "x", "EXCHANGE", as: .name,
    "Listen to an exchange, through a queue of its own that goes away at the end.")
  static let keys = Option.list(
    "key", short: "k", "PATTERN", as: .name,
    "With --exchange: what to listen to. Without any key, everything that \"#\" matches.")
  static let count = Option.optional(
    "count", short: "n", "N", as: .integer(1...(.max)), "End after so many messages.")
  static let timeout = Option.optional(
    "timeout", short: "t", "DURATION", as: .duration,
    "End when no message has come for so long, such as 5s.")
  static let prefetch = Option.value(
    "prefetch", "N", as: .integer(0...65_535), default: 256, shown: "256",
    "Most messages under way that are not yet acknowledged; 0 is no limit.")
  static let exclusive = Option.flag("exclusive", "Be the queue's only consumer.")
  static let arguments = Option.fields(
    "arg", short: "a", "An argument of the consumer, such as x-priority=10,")

  static let command = Command(
    name: "subscribe", summary: "print messages as they come",
    details: [
      """
      Subscribes to a queue, or with --exchange to what an exchange gets from now on. Says so on \
      standard error once it is ready. Messages are acknowledged after they are printed, so that \
      none is lost when the command is stopped.
      """,
      """
      To take the first few messages, use --count: it takes that many and leaves the others alone. \
      A reader that goes away, as in "martlet subscribe jobs | head -1", is noticed at the next \
      write: up to --prefetch messages are on their way to this command by then, and those that were \
      printed into the pipe and acknowledged, but not read, are gone.
      """,
      """
      With --filter it takes what a condition is true of: of what an exchange gets, or of a stream. \
      Other queues have no filters, and refuse.
      """,
      "SIGINT (Ctrl-C) and SIGTERM end it in order, with exit code 0.",
    ],
    arguments: [queue],
    options: [
      exchange, keys, FilterOption.option, count, timeout, MessageFormat.option, AckMode.option,
      prefetch, exclusive,
      arguments,
    ] + BrokerOptions.all,
    examples: [
      .init("martlet subscribe jobs", "Prints the bodies of the queue's messages."),
      .init(
        "martlet subscribe --exchange events --key 'order.#' --format json",
        "Watches what an exchange gets, with all there is to see."),
      .init(
        "martlet subscribe --exchange events --filter 'retries > 3'",
        "Watches for what a condition is true of."),
      .init(
        "martlet subscribe logs --arg x-stream-offset=first --filter 'status >= 500'",
        "Reads of a stream what a condition is true of."),
      .init(
        "martlet subscribe jobs --count 100 --timeout 5s > jobs.txt",
        "Takes a hundred messages, or what there is."),
      .init(
        "martlet subscribe jobs --arg x-priority=10",
        "Is served before consumers of lower priority."),
    ],
    exitCodes: [.empty],
    action: .asynchronous { invocation async throws(Failure) in
      try check(invocation)
      return try await Session.run(invocation) { session async throws(Failure) in
        let subscription = try await Subscription(invocation, session)
        return try await subscription.run()
      }
    })

  private static func check(_ invocation: Invocation) throws(Failure) {
    let hasQueue = !invocation[queue].isEmpty
    switch (hasQueue, invocation[exchange] != nil) {
    case (true, true): throw Failure("QUEUE and --exchange exclude each other", code: .usage)
    case (false, false): throw Failure("QUEUE or --exchange EXCHANGE is missing", code: .usage)
    case (true, false) where !invocation[keys].isEmpty:
      throw Failure("--key goes with --exchange, not with a queue", code: .usage)
    case (true, false), (false, true): break
    }
  }
}
