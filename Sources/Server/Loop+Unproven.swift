import Base

/// What clients may make the broker keep before they have logged in and opened their virtual host:
/// little each, since their requests are small, and not much together. Whoever needs more than the
/// others leave goes at the expense of those who have kept theirs for longest.
extension Loop {
  /// Counts what `connection` keeps now. Called whenever that may have changed.
  @inline(__always)
  func countUnproven(_ connection: Connection) {
    if connection.isProven { return }
    recountUnproven(connection)
  }

  private func recountUnproven(_ connection: Connection) {
    let bytes = connection.leftover.capacity
    unprovenBytes += bytes - connection.unprovenBytes
    if bytes > 0, connection.unprovenBytes == 0 {
      forgetSettled()
      unproven.append(connection.token)
    }
    connection.unprovenBytes = bytes
    var spared = 0
    while unprovenBytes > settings.unprovenBytesMax, unproven.count > spared {
      let token = unproven.removeFirst()
      guard let oldest = holder(token) else { continue }
      if oldest === connection {
        // It is being served.
        unproven.append(token)
        spared = 1
      } else {
        drop(oldest, "the unfinished logins of all clients take too much memory")
      }
    }
  }

  /// The connection has opened its virtual host.
  func prove(_ connection: Connection) {
    connection.isProven = true
    forgetUnproven(connection)
  }

  /// What it keeps is no longer counted here.
  func forgetUnproven(_ connection: Connection) {
    unprovenBytes -= connection.unprovenBytes
    connection.unprovenBytes = 0
  }

  private func forgetSettled() {
    while let token = unproven.first, holder(token) == nil { _ = unproven.removeFirst() }
  }

  /// The connection of that token, if it still keeps something before its login.
  private func holder(_ token: UInt64) -> Connection? {
    let slot = Int(token & 0xFFFF_FFFF)
    guard let connection = connections[slot], connection.token == token,
      connection.unprovenBytes > 0
    else { return nil }
    return connection
  }
}
