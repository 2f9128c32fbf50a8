import Inspection
import Journal

/// `martlet journal inspect`.
enum JournalInspect {
  private static let limit = Option.value(
    "limit", "N", as: .integer(0...1_000_000_000), default: 0,
    "Show only the last N records of the log; 0 shows all.")
  private static let from = Option<Int?>.optional(
    "from", "POSITION", as: .integer(0...Int.max), "Show the log from this position on.")
  private static let to = Option<Int?>.optional(
    "to", "POSITION", as: .integer(0...Int.max), "Show the log before this position.")
  private static let kinds = Option<[String]>.list(
    "kind", "KIND", as: .recordKind, "Show only records of this kind, such as message or settle.")
  private static let queue = Option<String?>.optional(
    "queue", short: "q", "QUEUE", as: .text,
    "Show only what concerns this queue, by its name or its number.")
  private static let messages = Option.flag(
    "messages", short: "m", "Show every message of lane files, not only their blocks.")
  private static let body = Option.value(
    "body", "N", as: .integer(0...1 << 20), default: 0,
    "Show the first N bytes of each message's body.")
  private static let summary = Option.flag("summary", short: "s", "Show only the counts.")

  static let command = Command(
    name: "inspect", summary: "show what the journal holds",
    details: [
      """
      Shows the checkpoint's records, the lane files with their blocks, and a line for each record \
      of the log: its position, file, offset, size and what it says. Damage is shown where it is.
      """,
      "With --from, --to or --limit only the log is shown. Nothing is changed.",
    ],
    arguments: [JournalDirectory.argument],
    options: [limit, from, to, kinds, queue, messages, body, summary],
    examples: [
      .init("martlet journal inspect martlet-data --limit 20", "Shows the end of the log."),
      .init(
        "martlet journal inspect martlet-data --queue orders --body 40",
        "Shows what concerns a queue, with the beginning of each body."),
      .init("martlet journal inspect martlet-data --summary", "Shows how much there is."),
    ],
    exitCodes: [.damaged],
    action: .blocking { invocation throws(Failure) in
      let directory = try JournalDirectory(invocation[JournalDirectory.argument])
      if let user = try directory.user() {
        Console.complain(
          "\(user); what is shown may change under the reader", path: invocation.path)
      }
      do throws(JournalError) {
        let survey = try JournalSurvey(directory: directory.journal)
        return try JournalListing(survey, selection(invocation)).show()
      } catch {
        throw Failure(error)
      }
    })

  private static func selection(_ invocation: Invocation) -> JournalListing.Selection {
    JournalListing.Selection(
      limit: invocation[limit], from: invocation[from], to: invocation[to],
      kinds: Set(invocation[kinds]), queue: invocation[queue],
      showsMessages: invocation[messages], bodyBytes: invocation[body],
      isSummary: invocation[summary])
  }
}

extension WordKind where Value == String {
  /// The name of a kind of record.
  static var recordKind: WordKind {
    let names = RecordDescription.kindNames
    return WordKind(
      parse: { names.contains($0) ? $0 : nil }, expected: "one of \(names.joined(separator: ", "))")
  }
}
