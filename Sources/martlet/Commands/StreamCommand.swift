import Client
import JSON

/// `martlet stream`: streams, and the groups of their consumers.
enum StreamCommand {
  static let command = Command(
    name: "stream", summary: "list streams, and change them or the groups of their consumers",
    details: [
      """
      A stream is declared, written, read and deleted like a queue: "martlet declare queue logs --durable \
      -a x-queue-type=stream", "martlet subscribe logs -a x-stream-offset=first".
      """
    ],
    action: .group([
      StreamList.command, StreamInfo.command, StreamGroups.command, StreamReset.command,
      StreamDeleteGroup.command, StreamAddPartitions.command,
    ]))

  static let stream = Option.argument("STREAM", as: .name, "Name of the stream.")
  static let group = Option.argument("GROUP", as: .name, "Name of the group.")
  static let json = Option.flag("json", "Print the broker's answer as a line of JSON.")

  static func show(json value: JSONValue) {
    var line = JSONWriter()
    line.value(value)
    Console.show(line.text + "\n")
  }
}

/// `martlet stream list`.
enum StreamList {
  private static let json = Option.flag("json", "Print each as a line of JSON.")

  static let command = Command(
    name: "list", summary: "show the streams of the virtual host",
    details: [
      """
      Shows of each stream how many partitions it has and how many records these keep, the bytes of their \
      segments, and how many groups and consumers there are. What is in the log alone is not among the bytes.
      """
    ],
    options: [json] + BrokerOptions.all,
    examples: [
      .init("martlet stream list", "Shows them as a table."),
      .init("martlet stream list --json", "For a program."),
    ],
    exitCodes: [.interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        try await list(session, asJSON: invocation[json])
        return .success
      }
    })

  private static func list(_ session: Session, asJSON: Bool) async throws(Failure) {
    let line = try await session.openManagement()
    var table = TextTable(
      ("stream", .left), ("partitions", .right), ("records", .right), ("segment bytes", .right),
      ("groups", .right), ("consumers", .right))
    var count = 0
    var cursor: String?
    repeat {
      let from = cursor
      let page = try await line.ask("stream-list") { json in
        if let from { json.field("cursor", from) }
      }
      for stream in page.elements("streams") {
        count += 1
        if asJSON {
          StreamCommand.show(json: stream)
        } else {
          table.add(
            stream.text("name") ?? "", stream.grouped("partitions"), stream.grouped("records"),
            stream.grouped("segment_bytes"), stream.grouped("groups"), stream.grouped("consumers"))
        }
      }
      cursor = page.text("next")
    } while cursor != nil
    if !asJSON, count > 0 { Console.show(table.text()) }
    session.notes.say(HumanWords.count(count, "stream"))
  }
}

/// `martlet stream info`.
enum StreamInfo {
  static let command = Command(
    name: "info", summary: "show the partitions of a stream",
    details: [
      """
      Shows of each partition the offset of the first record that is kept, the offset that comes next, how many \
      records there are, how many of them are still in the log, its segments and their bytes, and when the \
      oldest record was stored, at the latest: for one that has moved out of the log, that is known of its \
      segment.
      """
    ],
    arguments: [StreamCommand.stream], options: [StreamCommand.json] + BrokerOptions.all,
    examples: [.init("martlet stream info logs", "Shows what the stream keeps.")],
    exitCodes: [.interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        let line = try await session.openManagement()
        let answer = try await line.ask("stream-info") { json in
          json.field("stream", invocation[StreamCommand.stream].description)
        }
        if invocation[StreamCommand.json] {
          StreamCommand.show(json: answer)
        } else {
          Console.show(text(answer))
        }
        return .success
      }
    })

  private static func text(_ answer: JSONValue) -> String {
    let facts = [
      HumanWords.count(answer.number("records"), "record"),
      HumanWords.count(answer.number("segment_bytes"), "byte") + " in segments",
      HumanWords.count(answer.number("groups"), "group"),
      HumanWords.count(answer.number("consumers"), "consumer"),
    ]
    var text = "stream \"\(answer.text("name") ?? "")\": " + facts.joined(separator: ", ") + "\n"
    if case .object(let members)? = answer.member("arguments") {
      let words = members.map { member in
        var json = JSONWriter()
        json.value(member.value)
        return "\(member.name)=\(json.text)"
      }
      text += "declared with " + words.joined(separator: ", ") + "\n"
    }
    var table = TextTable(
      ("partition", .right), ("first", .right), ("next", .right), ("records", .right),
      ("in log", .right), ("segments", .right), ("bytes", .right), ("oldest by", .left))
    for partition in answer.elements("partitions") {
      let oldest =
        partition.member("oldest_before") == nil
        ? "-" : DateWord.text(milliseconds: partition.number("oldest_before"))
      table.add(
        partition.grouped("partition"), partition.grouped("first_offset"),
        partition.grouped("next_offset"), partition.grouped("records"),
        partition.grouped("records_in_log"), partition.grouped("segments"),
        partition.grouped("segment_bytes"), oldest)
    }
    return text + table.text()
  }
}

extension JSONValue {
  /// A number as people read it.
  func grouped(_ name: String) -> String { HumanWords.grouped(number(name)) }
}

/// `martlet stream add-partitions`.
enum StreamAddPartitions {
  private static let count = Option.argument(
    "N", as: .integer(1...1024), "How many more; a stream has at most 1024.")

  static let command = Command(
    name: "add-partitions", summary: "give a stream more partitions",
    details: [
      """
      Records stay where they are. Where the next records of a key go is computed with the new number of \
      partitions, as Kafka does it: most keys move, and do not keep their order over that moment. Consumers of all \
      partitions, and groups, read the new ones from their first records on. It cannot be undone.
      """
    ],
    arguments: [StreamCommand.stream, count], options: [StreamCommand.json] + BrokerOptions.all,
    examples: [.init("martlet stream add-partitions logs 4", "From four partitions to eight.")],
    exitCodes: [.interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        let line = try await session.openManagement()
        let stream = invocation[StreamCommand.stream]
        let answer = try await line.ask("stream-add-partitions") { json in
          json.field("stream", stream.description)
          json.field("count", invocation[count])
        }
        if invocation[StreamCommand.json] { StreamCommand.show(json: answer) }
        let total = HumanWords.count(answer.number("partitions"), "partition")
        session.notes.say(#"stream "\#(stream)" has \#(total)"#)
        return .success
      }
    })
}
