/// `martlet journal`: looks into the journal of a stopped broker, and repairs it.
enum JournalCommand {
  static let command = Command(
    name: "journal", summary: "look into the journal of a stopped broker, and repair it",
    action: .group([JournalInspect.command, JournalVerify.command, JournalRepairing.command]))
}
