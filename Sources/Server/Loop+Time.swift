import Broker

/// What happens because time passes. What is due for one connection has its place in `deadlines`, the broker
/// says what it wants to do by itself (`Broker.nextDue`), and what has no time of its own is looked at a few
/// times a second while it is not over. Otherwise the loop sleeps until the first of these, or for ever.
extension Loop {
  static let sweepMilliseconds: Int64 = 250
  /// After so long without a word from any client, unused memory is given back.
  static let quietMilliseconds: Int64 = 2000
  /// A connection that has said nothing for so long gives back the memory of its output.
  private static let outputMilliseconds: Int64 = 1000

  /// How long the next turn may be waited for, in milliseconds since this one began; nil is for ever.
  package var waitMilliseconds: Int64? { nextDue.map { $0 - now } }

  /// When the next turn is to come though nobody asks for anything, in monotonic milliseconds; nil is never.
  /// It is `now` where work is left, and later for what is due: whatever keeps that from being done,
  /// there is no turn behind the other without end.
  var nextDue: Int64? {
    if hasMore { return now }
    var due = deadlines.next ?? .max
    if let brokersDue = broker.nextDue { due = min(due, brokersDue) }
    if let stopDeadline { due = min(due, stopDeadline) }
    if !hasReleasedMemory { due = min(due, heardAt + Self.quietMilliseconds) }
    if wantsSweep { due = min(due, nextSweep) }
    return due == .max ? nil : max(due, now + 1)
  }

  // MARK: All

  /// Does what is due.
  func tend() {
    if now >= nextSweep, wantsSweep { sweep() }
    if !hasReleasedMemory, now - heardAt >= Self.quietMilliseconds {
      hasReleasedMemory = true
      work.isSweep = true
      broker.journal.releaseUnused()
      releaseMemory()
    }
    tendDue()
  }

  /// Something may be over, of which nobody will tell.
  private var wantsSweep: Bool {
    broker.alarm != nil || spaceProblem != nil || broker.journal.stuckReason != nil || isShort
      || broker.hasReleasedMuch
  }

  /// Who may go on depends on what others do meanwhile.
  private var isShort: Bool { isInputShort || !held.isEmpty || broker.isOutputExhausted }

  /// What concerns all connections.
  private func sweep() {
    nextSweep = now + Self.sweepMilliseconds
    work.isSweep = true
    watchSpace()
    watchStuckLog()
    if isShort {
      for case let connection? in connections { tend(connection) }
    }
    if broker.hasReleasedMuch {
      broker.memoryReleased()
      releaseMemory()
    }
  }

  // MARK: One

  /// Does what is due for connections.
  private func tendDue() {
    while let slot = deadlines.takeDue(at: now) {
      guard let connection = connections[slot] else { continue }
      work.isSweep = true
      connection.dueAt = .max
      tend(connection)
      if !connection.isClosed { arm(connection) }
    }
  }

  /// Sees to it that the loop looks at the connection when something is due for it. What is due later
  /// than was thought is found out when that time has come: a connection that is busy costs nothing.
  func arm(_ connection: Connection) {
    guard !connection.isClosed else { return }
    let due = max(nextDue(connection), now + 1)
    guard due < connection.dueAt else { return }
    connection.dueAt = due
    deadlines.arm(connection.slot, at: due)
  }

  private func nextDue(_ connection: Connection) -> Int64 {
    let conversation = connection.conversation
    var due = connection.deadline
    let interval = conversation.heartbeatMilliseconds
    if conversation.phase == .open, interval > 0 {
      due = min(due, connection.receivedAt + Self.patience(interval) + 1)
      if conversation.unsentBytes == 0 {
        due = min(due, connection.sentAt + interval / 2)
      } else if let since = connection.unreadSince, isUnread(connection) {
        due = min(due, since + Self.patience(interval) + 1)
      }
    }
    if connection.unfinishedBytes > 0, !connection.isLingering {
      due = min(due, connection.progressAt + settings.contentMilliseconds + 1)
    }
    if conversation.keepsOutput {
      due = min(due, connection.sentAt + Self.outputMilliseconds + 1)
    }
    return due
  }

  /// Who is not heard, or does not read, for longer is gone.
  private static func patience(_ heartbeat: Int64) -> Int64 { 2 * heartbeat + sweepMilliseconds }

  private func isUnread(_ connection: Connection) -> Bool {
    connection.conversation.unsentBytes >= connection.conversation.unsentBytesMax
  }

  private func tend(_ connection: Connection) {
    let conversation = connection.conversation
    if now >= connection.deadline {
      return drop(
        connection, connection.isLingering ? nil : "it did not finish the handshake in time")
    }
    watchProgress(connection)
    if isHoldingUp(connection) {
      return drop(connection, "it does not read, and slow readers have exhausted their memory")
    }
    let interval = conversation.heartbeatMilliseconds
    if conversation.phase == .open, interval > 0 {
      // A client that is not read cannot be heard either.
      if !connection.wantsReads { connection.receivedAt = now }
      if now - connection.receivedAt > Self.patience(interval) {
        return drop(connection, "no heartbeat for \(2 * interval / 1000) seconds")
      }
      if isUnread(connection), let since = connection.unreadSince,
        now - since > Self.patience(interval)
      {
        return drop(connection, "it has not read for \(2 * interval / 1000) seconds")
      }
      if now - connection.sentAt >= interval / 2, conversation.unsentBytes == 0 {
        conversation.heartbeatDue()
      }
    }
    if now - connection.sentAt > Self.outputMilliseconds { conversation.shrinkOutput() }
    recount(connection)
  }
}
