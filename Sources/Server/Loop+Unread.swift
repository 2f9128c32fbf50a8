/// What transports have kept of what came, such as the rest of a record that was decrypted whole, and
/// the end of what comes.
extension Loop {
  /// The transport has more of what has come, of which no event will tell: that is for the next turn.
  func noteUnread(_ connection: Connection) {
    hasMore = true
    guard !connection.isInUnread else { return }
    connection.isInUnread = true
    unread.append(connection)
  }

  /// Reads what transports have kept, from those that want it still.
  func readUnread() {
    let waiting = unread
    unread = []
    for connection in waiting {
      connection.isInUnread = false
      if !connection.isClosed, connection.hasUnread, connection.wantsReads { read(connection) }
    }
  }

  /// The client has ended its stream, and may still read.
  func inputEnded(_ connection: Connection) {
    if connection.conversation.phase.isClosed, connection.unsentCount > 0 {
      connection.isInputEnded = true
      settle(connection)
    } else {
      drop(connection, connection.isLingering ? nil : "the client is gone")
    }
  }
}
