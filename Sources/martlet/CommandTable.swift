import Base

extension ProgramDeclaration {
  /// Every command there is. To add one, write a file in `Commands` with its declaration and list it
  /// here.
  static let martlet = ProgramDeclaration(
    version: Version.text,
    headline: "Martlet \(Version.text), a message broker: AMQP in front, one log behind.",
    sections: [
      Section(title: "Broker", commands: [Serve.command, JournalCommand.command]),
      Section(
        title: "Messages",
        commands: [
          Publish.command, Subscribe.command, Get.command, Redrive.command, Delayed.command,
          Trace.command,
        ]),
      Section(
        title: "Topology",
        commands: [
          Declare.command, Bind.bind, Bind.unbind, Route.command, Purge.command, Delete.command,
          StreamCommand.command,
        ]),
      Section(title: "Measuring", commands: [BenchCommand.command]),
    ],
    closing: [
      """
      Commands that talk to a broker find it by --url or MARTLET_URL; without these they look for \
      it on this machine.
      """,
      #"Run "martlet help COMMAND" for the options and examples of a command."#,
    ])
}
