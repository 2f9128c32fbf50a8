/// What another thread, or a signal, asks of the loop. It comes through a `Mailbox` and is performed
/// between turns of clients, in the order in which it was posted.
package enum LoopCommand: Equatable, Sendable {
  /// The broker stops; asked for twice, at once. `asker` is such as "signal SIGTERM".
  case stop(asker: String)
  /// The broker's figures go to the log.
  case status
  /// A line for the log.
  case tell(String)

  /// So many may wait. Whoever finds the box full is told so at once (`Mailbox.Answer.full`), and
  /// nothing waits for room: a loop that is so far behind is not to get more to do.
  package static let countMax = 1024
}

extension Loop {
  package func perform(_ command: LoopCommand) {
    switch command {
    case .stop(let asker):
      if isStopping {
        log.warning("stopping at once, as asked for twice")
      } else {
        log.info("stopping, as \(asker) asks for")
      }
      stop()
    case .status: logStatus()
    case .tell(let line): log.info(line)
    }
  }
}
