import AMQP
import Base

/// How a `WireConnection` presents itself and how it reads.
public struct WireOptions: Sendable {
  /// What people see in the broker's list of connections.
  public var connectionName: String?
  public var product = "Martlet client"
  /// How many bytes one read asks for.
  public var readSize = 65_536
  /// The kernel's receive buffer in bytes; nil leaves it to the kernel.
  public var kernelReceiveSize: Int32?
  /// A commit with a mandatory message that no queue takes is to be answered with `tx.rollback-ok`.
  public var wantsRollback = false

  /// By which a broker says that it does that, and a client that it wants it.
  static let rollbackCapability: Name = "tx_rollback_unroutable"

  public init() {}

  /// What `connection.start-ok` tells the broker.
  var clientProperties: FieldTable {
    var capabilities: FieldTable = [
      "publisher_confirms": .bool(true),
      "consumer_cancel_notify": .bool(true),
      "exchange_exchange_bindings": .bool(true),
      "basic.nack": .bool(true),
      "connection.blocked": .bool(true),
      "authentication_failure_close": .bool(true),
    ]
    if wantsRollback {
      capabilities.entries.append(.init(name: Self.rollbackCapability, value: .bool(true)))
    }
    var table: FieldTable = [
      "product": .string(product),
      "version": .string(Version.text),
      "platform": .string("Swift"),
      "capabilities": .table(capabilities),
    ]
    if let connectionName {
      table.entries.append(.init(name: "connection_name", value: .string(connectionName)))
    }
    return table
  }
}
