/// What can happen so often that a line for each would be of no use, or be somebody's weapon. Of each
/// kind some are told in full; how many more there were is told once in a while.
enum LogKind: Int, CaseIterable, Sendable {
  case opened, turnedAway, loginRefused, wrongProtocol, notOpened, lost, closedByBroker
  case channelClosed, blocked, notAccepted, consumerTimedOut, notTold

  var level: Log.Level {
    switch self {
    case .opened: .info
    case .notAccepted: .error
    case .turnedAway, .loginRefused, .wrongProtocol, .notOpened, .lost, .closedByBroker,
      .channelClosed, .blocked, .consumerTimedOut, .notTold:
      .warning
    }
  }

  /// So many are told in full within one window.
  var linesMax: Int { self == .opened ? 200 : 20 }

  /// What there were more of.
  var summary: String {
    switch self {
    case .opened: "connections opened"
    case .turnedAway: "clients turned away"
    case .loginRefused: "logins refused"
    case .wrongProtocol: "clients that speak another protocol"
    case .notOpened: "connections closed before they were open"
    case .lost: "open connections lost"
    case .closedByBroker: "connections closed by the broker"
    case .channelClosed: "channels closed by the broker"
    case .blocked: "publishers blocked"
    case .consumerTimedOut: "consumers cancelled that acknowledged too late"
    case .notTold: "times that events or traces were dropped"
    case .notAccepted: "clients that could not be accepted"
    }
  }
}
