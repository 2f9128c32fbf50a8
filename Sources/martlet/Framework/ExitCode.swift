/// What the process ends with, so that scripts can tell the cases apart.
enum ExitCode: Int32, CaseIterable, Sendable {
  case success = 0
  case failure = 1
  case usage = 2
  case empty = 3
  case undelivered = 4
  case damaged = 5
  case inUse = 6
  /// By SIGINT.
  case interrupted = 130
  /// By SIGTERM.
  case terminated = 143

  var help: String {
    switch self {
    case .success: "all is done"
    case .failure: "the broker refused, the connection was lost, or a file could not be read"
    case .usage: "the command line was wrong"
    case .empty: "fewer messages came than were asked for"
    case .undelivered: "the broker returned or refused a published message"
    case .damaged: "the journal is damaged"
    case .inUse: "a broker is running on the directory"
    case .interrupted: "interrupted before the end by SIGINT (Ctrl-C)"
    case .terminated: "interrupted before the end by SIGTERM"
    }
  }
}
