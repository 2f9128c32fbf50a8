import Client
import JSON

/// `martlet stream groups`.
enum StreamGroups {
  private static let group = Option.argument(
    "GROUP", as: .name, default: "", "Only this group; without it all of the stream.")
  private static let json = Option.flag("json", "Print each group as a line of JSON.")

  static let command = Command(
    name: "groups", summary: "show who reads a stream together, and how far they are",
    details: [
      """
      Shows of each group its partitions: the committed offset, before which all is acknowledged, the offset at \
      the end, the lag, which is how many records from the committed offset on are there, and the consumer that \
      reads the partition, if there is one.
      """
    ],
    arguments: [StreamCommand.stream, group], options: [json] + BrokerOptions.all,
    examples: [
      .init("martlet stream groups logs", "Shows all groups of the stream."),
      .init("martlet stream groups logs indexer --json", "One group, for a program."),
    ],
    exitCodes: [.interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        try await list(invocation, session)
        return .success
      }
    })

  private static func list(_ invocation: Invocation, _ session: Session) async throws(Failure) {
    let line = try await session.openManagement()
    var count = 0
    /// A group whose partitions do not fit a page is in the next one as well.
    var current: Group?
    func show() {
      guard let group = current else { return }
      if invocation[json] {
        Console.show(group.json + "\n")
      } else {
        Console.show((count == 0 ? "" : "\n") + group.text)
      }
      count += 1
    }
    var cursor: String?
    repeat {
      let from = cursor
      let page = try await line.ask("stream-groups") { json in
        json.field("stream", invocation[StreamCommand.stream].description)
        if invocation.has(group) { json.field("group", invocation[group].description) }
        if let from { json.field("cursor", from) }
      }
      for found in page.elements("groups") {
        if current?.add(found) == true { continue }
        show()
        current = Group(found)
      }
      cursor = page.text("next")
    } while cursor != nil
    show()
    session.notes.say(HumanWords.count(count, "group"))
  }

  /// A group as the pages of the answer bring it.
  private struct Group {
    private let name: String
    private var memberCount: Int
    private var lag: Int
    private var partitions: [JSONValue]

    init(_ found: JSONValue) {
      name = found.text("name") ?? ""
      memberCount = found.number("members")
      lag = found.number("lag")
      partitions = found.elements("partitions")
    }

    /// False if it is another one.
    mutating func add(_ found: JSONValue) -> Bool {
      guard found.text("name") == name else { return false }
      memberCount = found.number("members")
      lag = found.number("lag")
      partitions += found.elements("partitions")
      return true
    }

    var json: String {
      var line = JSONWriter()
      line.object { json in
        json.field("name", name)
        json.field("members", memberCount)
        json.field("lag", lag)
        json.key("partitions")
        json.value(.array(partitions))
      }
      return line.text
    }

    var text: String {
      let members = HumanWords.count(memberCount, "member")
      var table = TextTable(
        ("partition", .right), ("committed", .right), ("end", .right), ("lag", .right),
        ("consumer", .left), ("connection", .left), ("user", .left))
      for partition in partitions {
        table.add(
          partition.grouped("partition"), partition.grouped("committed_offset"),
          partition.grouped("end_offset"), partition.grouped("lag"),
          partition.text("consumer") ?? "-", partition.text("connection") ?? "-",
          partition.text("user") ?? "-")
      }
      return "group \"\(name)\": \(members), lag \(HumanWords.grouped(lag))\n"
        + table.text(indent: 2)
    }
  }
}

/// `martlet stream reset`.
enum StreamReset {
  private static let place = Option.required(
    "to", "PLACE", as: .streamPlace,
    "Where to go on: first, last, next, an offset, -10, 90m or 2026-11-28T12:00:00Z.")
  private static let partition = Option.optional(
    "partition", "N", as: .integer(0...(.max)), "Only in this partition; without it in all.")

  static let command = Command(
    name: "reset", summary: "let a group of consumers go on elsewhere in its stream",
    details: [
      """
      The group must have no members, since these would go on from where they are. It goes on at the first or last \
      record that is kept, with what comes next, at an offset, with the last 10 records of each partition (-10), or \
      with what was stored in the last 90 minutes (90m) or from a moment on. What is gone begins with the first \
      record that is kept; an offset behind the end waits for that record.
      """,
      """
      It is done when the command says so, in all partitions together, and a crash does not take it back. Records \
      that the group gets again are marked as redelivered.
      """,
    ],
    arguments: [StreamCommand.stream, StreamCommand.group],
    options: [place, partition, StreamCommand.json] + BrokerOptions.all,
    examples: [
      .init("martlet stream reset logs indexer --to first", "The group reads all again."),
      .init(
        "martlet stream reset logs indexer --to 2026-11-28T12:00:00Z", "What came since that noon."),
      .init(
        "martlet stream reset logs indexer --to 4711 --partition 2",
        "Passes over a record that nobody can read."),
    ],
    exitCodes: [.interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        try await reset(invocation, session)
        return .success
      }
    })

  private static func reset(_ invocation: Invocation, _ session: Session) async throws(Failure) {
    let line = try await session.openManagement()
    let (stream, group) = (invocation[StreamCommand.stream], invocation[StreamCommand.group])
    let answer = try await line.ask("stream-reset") { json in
      json.field("stream", stream.description)
      json.field("group", group.description)
      invocation[place].write(into: &json)
      if let partition = invocation[partition] { json.field("partition", partition) }
    }
    if invocation[StreamCommand.json] { return StreamCommand.show(json: answer) }
    var table = TextTable(("partition", .right), ("from", .right), ("to", .right))
    for move in answer.elements("partitions") {
      table.add(move.grouped("partition"), move.grouped("from"), move.grouped("to"))
    }
    Console.show(table.text())
    session.notes.say(#"reset group "\#(group)" of stream "\#(stream)""#)
  }
}

/// `martlet stream delete-group`.
enum StreamDeleteGroup {
  static let command = Command(
    name: "delete-group", summary: "forget a group of consumers of a stream",
    details: [
      """
      The group must have no members. It is gone with its offsets when the command says so; a consumer that names \
      it later begins a new group. The stream's records stay.
      """
    ],
    arguments: [StreamCommand.stream, StreamCommand.group], options: BrokerOptions.all,
    examples: [.init("martlet stream delete-group logs indexer", "Forgets how far it was.")],
    exitCodes: [.interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        let line = try await session.openManagement()
        let (stream, group) = (invocation[StreamCommand.stream], invocation[StreamCommand.group])
        _ = try await line.ask("stream-group-delete") { json in
          json.field("stream", stream.description)
          json.field("group", group.description)
        }
        session.notes.say(#"deleted group "\#(group)" of stream "\#(stream)""#)
        return .success
      }
    })
}
