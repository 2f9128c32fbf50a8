import Glibc
import IO
import Inspection
import JSON
import Journal

/// `martlet journal repair`.
enum JournalRepairing {
  private static let yes = Option.flag("yes", short: "y", "Repair; without it nothing is changed.")
  private static let dryRun = Option.flag(
    "dry-run", short: "n", "Only show what would be done, as without --yes.")

  static let command = Command(
    name: "repair", summary: "let a broker start again that refuses to",
    details: [
      """
      For a journal that verify calls damaged. Writes a new journal of all that is sound, and \
      puts it in the place of the old one, which is kept whole in DIR/repair-TIME/before. \
      Nothing is thrown away: what cannot be used is also written to files in DIR/repair-TIME, and \
      report.txt there says what was damaged, how many messages of which queue are lost, and which \
      may be delivered again.
      """,
      """
      Needs space for what the log holds, not for lane files that are sound. Without --yes it \
      shows the report and changes nothing.
      """,
    ],
    arguments: [JournalDirectory.argument], options: [yes, dryRun],
    examples: [
      .init("martlet journal repair martlet-data", "Shows what would be done."),
      .init("martlet journal repair martlet-data --yes", "Does it."),
    ],
    exitCodes: [.damaged, .inUse],
    action: .blocking { invocation throws(Failure) in
      let directory = try JournalDirectory(invocation[JournalDirectory.argument])
      guard let data = directory.data else {
        throw Failure("\(directory.journal) must be given as the data directory above it")
      }
      try directory.refuseUser()
      guard invocation[yes], !invocation[dryRun] else { return try show(directory) }
      return try repair(directory, data)
    })

  private static func show(_ directory: JournalDirectory) throws(Failure) -> ExitCode {
    for left in try unfinished(directory) { Console.show("\(left.text)\n") }
    let verification = try JournalVerify.verify(directory)
    guard !verification.isSound else { return nothingToDo() }
    Console.show(JournalRepair(verification).report)
    Console.show("\nNothing was changed; repair with --yes.\n")
    return .damaged
  }

  private static func nothingToDo() -> ExitCode {
    Console.show("sound: there is nothing to repair\n")
    return .success
  }

  private static func repair(
    _ directory: JournalDirectory, _ data: String
  ) throws(Failure) -> ExitCode {
    let lock = try lock(data)
    let code = try repairLocked(directory, data)
    _ = consume lock
    return code
  }

  private static func repairLocked(
    _ directory: JournalDirectory, _ data: String
  ) throws(Failure) -> ExitCode {
    try finish(directory)
    let verification = try JournalVerify.verify(directory)
    guard !verification.isSound else { return nothingToDo() }
    let now = Clock.wallMilliseconds()
    let place = place(in: data, now)
    let repair = JournalRepair(verification, line: line)
    do throws(JournalError) {
      try repair.perform(in: place, now: now)
    } catch {
      throw Failure("\(error); the journal is as it was, unless it is in \(place)/before")
    }
    Console.show(repair.report)
    Console.show("\nRepaired. This report and what was set aside are in \(place).\n")
    let again = try JournalVerify.verify(directory)
    guard again.isSound else {
      throw Failure("the new journal is not sound: \(again.problems[0])", code: .damaged)
    }
    return .success
  }

  /// A name that no repair has had.
  static func place(in data: String, _ now: Int64) -> String {
    let first = data + "/repair-" + name(of: now)
    var place = first
    var number = 1
    while FileSystem.kind(place) != .missing {
      number += 1
      place = "\(first)-\(number)"
    }
    return place
  }

  private static func unfinished(
    _ directory: JournalDirectory
  ) throws(Failure) -> [UnfinishedRepair] {
    guard let data = directory.data else { return [] }
    do throws(JournalError) {
      return try UnfinishedRepair.all(in: data)
    } catch {
      throw Failure(error)
    }
  }

  /// Clears up behind repairs that were killed.
  private static func finish(_ directory: JournalDirectory) throws(Failure) {
    for left in try unfinished(directory) {
      do throws(JournalError) {
        try left.finish()
      } catch {
        throw Failure(error)
      }
      Console.show(
        left.state == .begun
          ? "\(left.text); what it had written was removed\n"
          : "\(left.text); the old one is in \(left.directory)/before now\n")
    }
  }

  private static func lock(_ data: String) throws(Failure) -> DirectoryLock {
    do throws(SystemError) {
      if let lock = try DirectoryLock(directory: data) { return lock }
    } catch {
      throw Failure("\(error)")
    }
    throw Failure("a broker is running on \(data)", code: .inUse)
  }

  /// A line of JSON.
  private static func line(_ message: SetAsideMessage) -> [UInt8] {
    var json = JSONWriter()
    json.object { json in
      json.field("queue", message.queue.description)
      json.field("sequence", message.sequence)
      json.field("exchange", message.exchange.description)
      json.field("key", message.key.description)
      json.field("properties_base64", Base64.encode(message.properties))
      if let text = String(validating: message.body, as: UTF8.self) {
        json.field("body", text)
      } else {
        json.field("body_base64", Base64.encode(message.body))
      }
    }
    return json.bytes + [UInt8(ascii: "\n")]
  }

  /// A moment as `20261121-043000`, in UTC.
  private static func name(of milliseconds: Int64) -> String {
    var seconds = time_t(milliseconds / 1000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return "\(parts.tm_year + 1900)\(two(parts.tm_mon + 1))\(two(parts.tm_mday))-"
      + "\(two(parts.tm_hour))\(two(parts.tm_min))\(two(parts.tm_sec))"
  }
}
