/// How a connection presents itself and how much it buffers.
public struct ConnectionOptions: Sendable {
  /// What people see in the broker's list of connections.
  public var name: String?
  /// A `publish` waits while more bytes than this are waiting to be sent.
  public var unsentMaxBytes = 1 << 20
  /// The connection stops reading while its consumers have more bytes than this in their buffers.
  /// Prefetch limits keep them smaller; consumers without acknowledgements have none.
  public var undeliveredMaxBytes = 16 << 20
  /// Returned messages that wait to be looked at; older ones are dropped.
  public var returnedMax = 10_000
  /// A transaction with a mandatory message that no queue takes is rolled back, as far as the broker
  /// can do that (`Connection.rollsBackUnroutable`), and `commit` throws `rolledBack`. Otherwise the
  /// message comes back, and all else happens.
  public var wantsRollback = false

  public init() {}

  public init(name: String) {
    self.name = name
  }
}
