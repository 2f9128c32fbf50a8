import IO
import Inspection
import Journal

/// `martlet journal verify`.
enum JournalVerify {
  static let command = Command(
    name: "verify", summary: "check everything in the journal, and count messages",
    details: [
      """
      Reads the whole log, the checkpoint and all lane files, and checks every checksum and \
      what belongs together. Says all that is wrong, and how many messages wait in each queue.
      """,
      "A tail that a crash cut is sound: nothing in it was promised. Nothing is changed.",
    ],
    arguments: [JournalDirectory.argument],
    examples: [.init("martlet journal verify martlet-data", "Says whether all is sound.")],
    exitCodes: [.damaged, .inUse],
    action: .blocking { invocation throws(Failure) in
      let directory = try JournalDirectory(invocation[JournalDirectory.argument])
      try directory.refuseUser()
      let verification = try verify(directory)
      Console.show(text(of: verification))
      guard verification.isSound else {
        let problems = HumanWords.count(verification.problems.count, "problem")
        let hint = "martlet journal repair \(directory.data ?? directory.journal)"
        Console.show("damaged: \(problems); see \"\(hint) --dry-run\"\n")
        return .damaged
      }
      Console.show(verification.survey.isEmpty ? nothing(in: directory) : "sound\n")
      return .success
    })

  /// An empty journal is sound, unless there was one.
  private static func nothing(in directory: JournalDirectory) -> String {
    guard let data = directory.data, DirectoryLock.note(in: data) != nil else {
      return "sound: there is nothing yet\n"
    }
    return "there is nothing, though a broker had a journal here: what it held is gone\n"
  }

  static func verify(_ directory: JournalDirectory) throws(Failure) -> JournalVerification {
    let progress = JournalProgress()
    defer { progress.end() }
    do throws(JournalError) {
      return try JournalVerification(directory: directory.journal) { progress.show($0) }
    } catch {
      throw Failure(error)
    }
  }

  static func text(of verification: JournalVerification) -> String {
    var text = ""
    for problem in verification.problems { text += "\(problem)\n" }
    for queue in verification.queues {
      let vhost = queue.vhost == "/" ? "" : " in \"\(queue.vhost)\""
      text += "queue \"\(queue.name)\"\(vhost): \(HumanWords.count(queue.count, "message"))"
      if queue.inLanes > 0 {
        text +=
          ", \(HumanWords.grouped(queue.inLanes)) of them in \(queue.isStream ? "segments" : "lane files")"
      }
      text += "\n"
    }
    let log = verification.log
    text += "log: \(HumanWords.count(log.records, "record")), from \(log.start) to \(log.end)"
    text += log.isClean || log.records == 0 ? "\n" : "; not stopped in order\n"
    if verification.survey.isAfterFailure {
      text += "the log had failed: the broker will mark all messages as redelivered\n"
    }
    let files = verification.survey.laneFiles.count
    text +=
      "\(HumanWords.count(files, "lane file")): \(HumanWords.count(verification.blocks, "block"))"
    text += ", \(HumanWords.grouped(verification.blocksAlive)) with waiting messages\n"
    guard verification.segmentCount > 0 else { return text }
    return text + "streams: \(HumanWords.count(verification.segmentCount, "segment"))\n"
  }
}
