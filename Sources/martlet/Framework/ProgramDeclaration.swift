/// All commands, in the sections in which help shows them.
struct ProgramDeclaration: Sendable {
  struct Section: Sendable {
    let title: String
    let commands: [Command]
  }

  let version: String
  /// The first line of the overview.
  let headline: String
  let sections: [Section]
  /// Paragraphs at the end of the overview.
  let closing: [String]

  var commands: [Command] { sections.flatMap(\.commands) }
}
