/// How many clients there is room for: as many as the option allows, and as the process's limit on
/// open descriptors leaves room for.
struct ClientRoom: Equatable {
  /// Kept for the journal, the listeners, and whoever looks on.
  static let reserve = 64
  /// Fewer make no broker.
  static let clientsMin = 8
  /// So many above the limit are told why they may not stay.
  static let refusedMax = 64

  /// Clients that may open their virtual host.
  let clientsMax: Int
  /// Clients above this are not even told why.
  let socketsMax: Int
  /// Which limit it is, for people.
  let reason: String

  /// Nil if the descriptors leave no room for `clientsMin`.
  init?(connectionsMax: Int, descriptorLimit: Int) {
    let room = descriptorLimit - Self.reserve
    guard room > 0 else { return nil }
    let refused = min(Self.refusedMax, max(1, room / 4))
    clientsMax = min(connectionsMax, room - refused)
    guard clientsMax >= min(Self.clientsMin, connectionsMax) else { return nil }
    socketsMax = clientsMax + refused
    reason =
      clientsMax < connectionsMax
      ? "the limit on open files (ulimit -n) is \(descriptorLimit)"
      : "connections-max is \(connectionsMax)"
  }

  /// The limit on descriptors that is enough for the fewest clients.
  static let descriptorsMin: Int = {
    (reserve...).first { ClientRoom(connectionsMax: .max, descriptorLimit: $0) != nil } ?? .max
  }()
}
