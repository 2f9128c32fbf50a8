import Base

extension ProgramDeclaration {
  /// Every command there is. To add one, write a file in `Commands` with its declaration and list it
  /// here.
  static let martlet = ProgramDeclaration(
    version: Version.text,
    headline: "Martlet \(Version.text), a message broker: AMQP in front, one log behind.",
    sections: [
      Section(title: "Broker", commands: [Serve.command, BenchCommand.command])
    ],
    closing: [
      #"Run "martlet help COMMAND" for the options and examples of a command."#
    ])
}
