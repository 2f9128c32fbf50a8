import Client
import JSON

/// `martlet delayed`: the messages that wait for their time.
enum Delayed {
  static let command = Command(
    name: "delayed", summary: "list or cancel messages that wait for their time",
    action: .group([DelayedList.command, DelayedCancel.command]))

  static let key = Option<Name?>.optional(
    "key", short: "k", "KEY", as: .name, "Only those with this routing key.")
}

/// `martlet delayed list`.
enum DelayedList {
  private static let exchange = Option<Name?>.optional(
    "exchange", short: "e", "EXCHANGE", as: .name, "Only those that wait at this exchange.")
  private static let limit = Option.value(
    "limit", short: "n", "N", as: .integer(1...1_000_000_000), default: 100, "Show at most so many."
  )
  private static let json = Option.flag("json", "Print each as a line of JSON.")

  static let command = Command(
    name: "list", summary: "show messages that wait for their time",
    details: [
      """
      Shows of each message its id, when it is due, its exchange, its routing key and the size of its \
      body. They come about in the order of their times: exactly for the next half minute, and by \
      hours, days or years later on.
      """,
      "Messages that others publish meanwhile may be among them or not.",
    ],
    options: [exchange, Delayed.key, limit, json] + BrokerOptions.all,
    examples: [
      .init("martlet delayed list", "Shows what is due next."),
      .init("martlet delayed list --exchange later --limit 100000 --json", "For a program."),
    ],
    exitCodes: [.interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        try await list(invocation, session)
        return .success
      }
    })

  private static let pageMax = 1000

  private static func list(_ invocation: Invocation, _ session: Session) async throws(Failure) {
    let line = try await session.openManagement()
    var seen: Set<String> = []
    var cursor: String?
    var waiting = 0
    var isComplete = true
    repeat {
      let (wanted, from) = (min(pageMax, invocation[limit] - seen.count), cursor)
      let page = try await line.ask("delayed-list") { json in
        if let exchange = invocation[exchange] { json.field("exchange", exchange.description) }
        if let key = invocation[Delayed.key] { json.field("routing_key", key.description) }
        json.field("limit", wanted)
        if let from { json.field("cursor", from) }
      }
      for message in page.elements("messages") {
        // One that moves nearer to its time meanwhile may come again.
        guard seen.insert(message.text("id") ?? "").inserted else { continue }
        show(message, asJSON: invocation[json])
      }
      cursor = page.text("next")
      waiting = page.number("waiting")
      isComplete = isComplete && page.flag("complete")
    } while cursor != nil && seen.count < invocation[limit]
    let more = cursor == nil ? "" : "; there are more (see --limit)"
    let words = HumanWords.count(waiting, "message") + (waiting == 1 ? " waits" : " wait")
    session.notes.say("\(words), \(HumanWords.grouped(seen.count)) shown\(more)")
    if !isComplete { session.notes.say("some messages cannot be read; see the broker's log") }
  }

  private static func show(_ message: JSONValue, asJSON: Bool) {
    if asJSON {
      var line = JSONWriter()
      line.value(message)
      return Console.show(line.text + "\n")
    }
    let words = [
      message.text("id") ?? "", DateWord.text(milliseconds: message.number("due")),
      message.text("exchange") ?? "", message.text("routing_key") ?? "",
      HumanWords.count(message.number("bytes"), "byte"),
    ]
    Console.show(words.joined(separator: "  ") + "\n")
  }
}

/// `martlet delayed cancel`.
enum DelayedCancel {
  private static let ids = Option.arguments(
    "ID", as: .text, "Message to cancel, as \"martlet delayed list\" shows it.")
  private static let exchange = Option<Name?>.optional(
    "exchange", short: "e", "EXCHANGE", as: .name, "Cancel all that wait at this exchange.")
  private static let all = Option.flag("all", "Cancel all that wait in the virtual host.")

  static let command = Command(
    name: "cancel", summary: "take out messages that wait for their time",
    details: [
      """
      Each is gone for good, also after a crash, once the command says so. What is published meanwhile \
      stays. Ends with code 4 if one of the ids waits no longer.
      """
    ],
    arguments: [ids], options: [exchange, Delayed.key, all] + BrokerOptions.all,
    examples: [
      .init("martlet delayed cancel 19ad0f2c1e0-000119ad0f2bd55", "Cancels one."),
      .init("martlet delayed cancel --exchange later --key mail.42", "Cancels some."),
      .init("martlet delayed cancel --all", "Cancels all."),
    ],
    exitCodes: [.undelivered, .interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try check(invocation)
      return try await Session.run(invocation) { session async throws(Failure) in
        try await cancel(invocation, session)
      }
    })

  private static func check(_ invocation: Invocation) throws(Failure) {
    let isSelected = invocation[exchange] != nil || invocation[Delayed.key] != nil
    let ways = [!invocation[ids].isEmpty, isSelected, invocation[all]].count { $0 }
    guard ways == 1 else {
      throw Failure("say which: by their ids, by --exchange and --key, or --all", code: .usage)
    }
  }

  /// Ids in one request.
  private static let idsMax = 1000

  private static func cancel(
    _ invocation: Invocation, _ session: Session
  ) async throws(Failure) -> ExitCode {
    let line = try await session.openManagement()
    var rest = invocation[ids][...]
    var count = 0
    var missing: [String] = []
    repeat {
      let some = Array(rest.prefix(idsMax))
      rest = rest.dropFirst(idsMax)
      let answer = try await line.ask("delayed-cancel") { json in
        if let exchange = invocation[exchange] { json.field("exchange", exchange.description) }
        if let key = invocation[Delayed.key] { json.field("routing_key", key.description) }
        if invocation[all] { json.field("all", true) }
        guard !some.isEmpty else { return }
        json.key("ids")
        json.array { json in
          for id in some { json.value(id) }
        }
      }
      count += answer.number("cancelled")
      for case .string(let id) in answer.elements("not_found") { missing.append(id) }
      if !answer.flag("complete") {
        session.notes.say("some messages cannot be read, and stay; see the broker's log")
      }
    } while !rest.isEmpty
    session.notes.say("cancelled \(HumanWords.count(count, "message"))")
    for id in missing { Console.complain("\(id) does not wait", path: invocation.path) }
    return missing.isEmpty ? .success : .undelivered
  }
}
