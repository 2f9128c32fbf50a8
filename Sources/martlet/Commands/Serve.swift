import IO
import Management
import Server

/// `martlet serve`: the broker itself. Its options come from the table of options.
enum Serve {
  private static let config = Option.optional(
    OptionsParser.fileFlag, short: "c", "FILE", as: .text,
    "Configuration file with lines of NAME = VALUE; MARTLET_CONFIG names one too.")
  private static let printConfig = Option.flag(
    "print-config", "Print the effective values, and where each comes from, and exit.")
  private static let settings = Options.declarations.map { Option.setting($0) }

  static let command = Command(
    name: "serve",
    summary: "run the broker",
    details: [
      """
      Every option can also be set in the configuration file (frame-max = 64KiB) and in the \
      environment (MARTLET_FRAME_MAX=64KiB). The command line wins over the environment, the \
      environment over the file, the file over the default.
      """,
      """
      SIGINT, SIGTERM and SIGQUIT stop the broker in order; SIGUSR1 writes its figures into the log. \
      SIGHUP changes nothing: options are read at the start alone. The log goes to standard error.
      """,
    ],
    options: [config, printConfig] + settings,
    examples: [
      .init("martlet serve", "Serves on port 5672 with the journal in ./martlet-data."),
      .init(
        "martlet serve --listen 127.0.0.1:5673 --data /var/lib/martlet",
        "Serves on another address, with the journal elsewhere."),
      .init(
        "martlet serve --config martlet.conf --print-config",
        "Shows what a configuration file comes to."),
    ],
    action: .blocking(run))

  @Sendable private static func run(_ invocation: Invocation) throws(Failure) -> ExitCode {
    let parser = try parse(invocation)
    if invocation[printConfig] {
      Console.show(parser.report)
      return .success
    }
    return runServer(parser.options, management: ManagementCommands()) == 0 ? .success : .failure
  }

  private static func parse(_ invocation: Invocation) throws(Failure) -> OptionsParser {
    var flags = settings.compactMap { option in
      invocation[option].map { OptionFlag(option.parameter.name, $0) }
    }
    if let path = invocation[config] { flags.append(OptionFlag(OptionsParser.fileFlag, path)) }
    do {
      return try OptionsParser(flags: flags, environment: Environment.variables()) {
        (path) throws(OptionsError) in try read(path)
      }
    } catch {
      throw Failure(error.description, code: .usage)
    }
  }

  private static func read(_ path: String) throws(OptionsError) -> String {
    do {
      return String(decoding: try WholeFile.read(path, bytesMax: 1 << 20), as: UTF8.self)
    } catch {
      throw OptionsError(nil, "the configuration file cannot be read: \(error)")
    }
  }
}

extension Option where Value == String? {
  /// An option of the server, whose words the server reads itself.
  fileprivate static func setting(_ declaration: OptionDeclaration) -> Option {
    let bounds = declaration.bounds.map { bounds in
      " From \(bounds.split(separator: ".").joined(separator: " to "))."
    }
    let valueName: String? =
      switch declaration.values {
      case "flag": nil
      case "integer": "N"
      case let choices where choices.contains("|"): choices
      case let kind: kind.uppercased()
      }
    return Option(
      Parameter(
        name: declaration.name, valueName: valueName,
        help: declaration.help + (bounds ?? ""), standard: declaration.standard)
    ) { words in words.last }
  }
}
