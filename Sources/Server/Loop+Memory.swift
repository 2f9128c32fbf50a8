import Base
import Broker

/// Who may go on taking memory when there is little left of what a kind of it may take. Nobody is
/// refused for what others do: they wait, and those who hold memory without going on lose it.
extension Loop {
  /// A connection that goes on with a message may not stop for longer while memory for such is short.
  static let shortageMilliseconds: Int64 = 5000
  /// So much of unfinished input may always be kept of each connection, up to twice the budget.
  private static let unfinishedBytesFree = 256 << 10

  /// Brings the account up to date with what this connection holds now.
  func recount(_ connection: Connection) {
    let input = connection.leftover.capacity
    if input != connection.countedInput {
      broker.account.add(input - connection.countedInput, to: .input)
      connection.countedInput = input
    }
    // What it was blocked with is not taken yet when it is to go on in the next turn.
    let blocked = connection.isBlocked || connection.isYielding ? input : 0
    if blocked != connection.countedBlockedInput {
      blockedInputBytes += blocked - connection.countedBlockedInput
      connection.countedBlockedInput = blocked
    }
    connection.conversation.countOutput()
  }

  // MARK: Unfinished input

  /// Requests and messages that have not arrived whole take more memory than they may.
  var isInputShort: Bool {
    broker.account.isOverBudget(.bodies) || broker.account.isOverBudget(.input)
  }

  /// Stops reading from a connection with unfinished input while memory for such is short, unless it
  /// is its turn to finish, or it holds little.
  func holdIfShort(_ connection: Connection) {
    guard connection.unfinishedBytes > 0, isInputShort, !connection.isHeld,
      connection !== finishing
    else { return }
    let isExhausted = broker.account.isExhausted(.bodies) || broker.account.isExhausted(.input)
    guard isExhausted || connection.unfinishedBytes > Self.unfinishedBytesFree else { return }
    connection.isHeld = true
    held.append(connection)
  }

  /// Reads again from those that were held, when there is memory for all; otherwise from one of them
  /// at a time, so that what is held comes to an end.
  func releaseHeld() {
    guard !held.isEmpty || finishing != nil else { return }
    if !isInputShort {
      finishing = nil
      let all = held
      held = []
      for connection in all { release(connection) }
    } else if finishing.map({ $0.isClosed || $0.unfinishedBytes == 0 || $0.isBlocked }) ?? true {
      finishing = nil
      held.removeAll { $0.isClosed }
      guard let index = held.firstIndex(where: { !$0.isBlocked }) else { return }
      let next = held.remove(at: index)
      finishing = next
      next.finishingSince = now
      release(next)
    }
  }

  private func release(_ connection: Connection) {
    guard !connection.isClosed else { return }
    connection.isHeld = false
    hasMore = true
    settle(connection)
  }

  /// Notes whether anything has come of a message or a request that has begun.
  func noteProgress(_ connection: Connection) {
    guard connection.unfinishedBytes > 0, connection.wantsReads, !connection.isLingering else {
      connection.progressAt = now
      return
    }
    let progress = connection.conversation.contentProgress &+ connection.leftover.count
    if progress != connection.progress {
      connection.progress = progress
      connection.progressAt = now
    }
  }

  /// A message or a request that has begun goes on, or its connection is closed.
  func watchProgress(_ connection: Connection) {
    noteProgress(connection)
    let isShort = isInputShort
    let patience =
      isShort
      ? min(Self.shortageMilliseconds, settings.contentMilliseconds) : settings.contentMilliseconds
    let isTooSlow =
      isShort && connection === finishing
      && now - connection.finishingSince > settings.contentMilliseconds
    guard now - connection.progressAt > patience || isTooSlow else { return }
    connection.progressAt = now
    connection.conversation.contentStalled(seconds: patience / 1000)
    settle(connection)
  }

  // MARK: Output

  /// Output that is not read takes twice what it may: large messages wait, and who does not read goes.
  func watchOutput() {
    if wasOutputExhausted {
      guard !broker.account.isOverBudget(.output) else { return }
      wasOutputExhausted = false
      broker.relieveOutput()
      log.info("slow readers take less memory again; large messages are delivered")
      makeRoomForAll()
      resumeWaiting()
      hasMore = true
    } else if broker.isOutputExhausted || broker.account.isExhausted(.output) {
      wasOutputExhausted = true
      broker.exhaustOutput()
      log.warning(
        "slow readers take \(broker.account[.output] >> 20) MiB of memory: large messages wait, and"
          + " whoever takes nothing for \(Self.shortageMilliseconds / 1000) seconds is closed")
      makeRoomForAll()
    }
  }

  private func makeRoomForAll() {
    for case let connection? in connections where connection.conversation.hasRoom {
      makeRoom(connection)
    }
  }

  /// The connection holds memory for output that it does not take, while that is exhausted.
  func isHoldingUp(_ connection: Connection) -> Bool {
    guard broker.isOutputExhausted, let since = connection.unreadSince else { return false }
    return now - since > Self.shortageMilliseconds
  }
}
