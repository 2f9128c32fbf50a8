import Glibc

/// What a signal asks of the broker. All that could end a process without its orderly stop are taken,
/// so that a terminal that closes, or somebody's wrong guess, loses nobody's connections.
enum BrokerSignal: Equatable {
  case stop
  case status
  /// Nothing yet: the reason is told.
  case ignored(String)

  private static let stopping = [SIGTERM, SIGINT, SIGQUIT, SIGPWR, SIGXCPU]
  private static let other = [SIGHUP, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT]
  private static let realTime = Array(__libc_current_sigrtmin()...__libc_current_sigrtmax())
  private static let names = [
    SIGTERM: "SIGTERM", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGPWR: "SIGPWR",
    SIGXCPU: "SIGXCPU", SIGHUP: "SIGHUP", SIGUSR1: "SIGUSR1", SIGUSR2: "SIGUSR2",
    SIGALRM: "SIGALRM", SIGVTALRM: "SIGVTALRM", SIGPROF: "SIGPROF", SIGIO: "SIGIO",
    SIGSTKFLT: "SIGSTKFLT",
  ]

  /// The signals that the broker wants to be told of.
  static let all = stopping + [SIGUSR1] + other + realTime

  init(_ signal: Int32) {
    switch signal {
    case SIGUSR1: self = .status
    case SIGHUP: self = .ignored("options are read at the start, and nothing is read again")
    case let signal where Self.stopping.contains(signal): self = .stop
    default: self = .ignored("it means nothing here; SIGTERM stops the broker")
    }
  }

  /// What the loop is to do for a signal.
  static func command(for signal: Int32) -> LoopCommand {
    let name = name(of: signal)
    return switch BrokerSignal(signal) {
    case .stop: .stop(asker: "signal \(name)")
    case .status: .status
    case .ignored(let reason): .tell("\(name) changes nothing: \(reason)")
    }
  }

  static func name(of signal: Int32) -> String { names[signal] ?? "signal \(signal)" }
}
