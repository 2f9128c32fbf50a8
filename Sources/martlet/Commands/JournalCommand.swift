import Base
import Broker
import Journal

/// `martlet journal`: looks into the log of a stopped broker.
enum JournalCommand {
  private static let directory = Option.argument(
    "DIR", as: .text, "Data directory of a broker that is stopped, or a copy of one.")
  private static let limit = Option.value(
    "limit", "N", as: .integer(0...1_000_000_000), default: 0,
    "Show only the last N records; 0 shows all.")

  static let command = Command(
    name: "journal", summary: "look into the log of a stopped broker",
    action: .group([inspect, verify]))

  private static let inspect = Command(
    name: "inspect", summary: "show every record of the log",
    details: ["One line for each record: its position, file, offset, size and what it says."],
    arguments: [directory], options: [limit],
    examples: [
      .init("martlet journal inspect martlet-data", "Shows the whole log."),
      .init("martlet journal inspect martlet-data --limit 20", "Shows its end."),
    ],
    action: .blocking { invocation throws(Failure) in
      var tail: [String] = []
      let limit = invocation[limit]
      let summary = try read(invocation[directory]) { line in
        let text =
          "\(line.position)  \(line.file)+\(line.offset)  \(line.size) B  "
          + RecordDescription.text(line.record)
        guard limit > 0 else { return Console.show(text + "\n") }
        tail.append(text)
        if tail.count > 2 * limit { tail.removeFirst(tail.count - limit) }
      }
      for text in tail.suffix(limit) { Console.show(text + "\n") }
      report(summary)
      return .success
    })

  private static let verify = Command(
    name: "verify", summary: "check every record of the log",
    details: [
      "Reads all segments and checks each record's checksum.",
      "A tail that a crash cut is sound: nothing in it was promised. Damage before it is not.",
    ],
    arguments: [directory],
    examples: [.init("martlet journal verify martlet-data", "Says whether the log is sound.")],
    action: .blocking { invocation throws(Failure) in
      report(try read(invocation[directory]) { _ in })
      Console.show("sound\n")
      return .success
    })

  private static func read(
    _ directory: String, _ body: (JournalInspection.Line) -> Void
  ) throws(Failure) -> JournalInspection.Summary {
    do throws(JournalError) {
      return try JournalInspection(directory: directory).read(body)
    } catch {
      throw Failure("\(error)")
    }
  }

  private static func report(_ summary: JournalInspection.Summary) {
    let kinds = summary.recordsByKind.sorted { $0.key < $1.key }
      .map { "\(RecordDescription.kindName($0.key)) \($0.value)" }.joined(separator: ", ")
    Console.show(
      """
      segments    \(summary.segments) of \(summary.segmentBytes >> 20) MiB, \
      \(summary.spares) spare
      checkpoint  \(summary.checkpointPosition.map { "at \($0)" } ?? "none")
      records     \(summary.records)\(kinds.isEmpty ? "" : " (\(kinds))")
      log         \(summary.bytes) bytes, from \(summary.start) to \(summary.end), \
      epoch \(summary.epoch)
      end         \(summary.isClean ? "stopped in order" : "not stopped in order, or still open")

      """)
  }
}
