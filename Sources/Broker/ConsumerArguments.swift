import AMQP
import Base

/// The arguments that a consumer can be started with. Others are kept and mean nothing.
enum ConsumerArguments {
  /// The consumer's priority, if all arguments have possible values.
  static func priority(_ arguments: FieldTable, queue: Queue) throws(BrokerError) -> Int64 {
    var priority: Int64?
    for entry in arguments.entries {
      switch entry.name {
      case "x-priority":
        guard let number = entry.value.integer else {
          throw invalid(
            entry.name, queue, "\"expected integer, got \(entry.value.typeName)\"")
        }
        priority = priority ?? number
      case "x-cancel-on-ha-failover":
        guard case .bool = entry.value else {
          throw invalid(entry.name, queue, "{unacceptable_type,\(entry.value.typeName)}")
        }
      case "x-stream-offset":
        throw .refusedForType(entry.name, queue: queue.name, in: queue.vhost.name, type: "classic")
      default: break
      }
    }
    return priority ?? 0
  }

  private static func invalid(_ name: Name, _ queue: Queue, _ reason: String) -> BrokerError {
    .refusedArgument(name, of: .subject(.queue(queue.name, in: queue.vhost.name)), reason: reason)
  }
}
