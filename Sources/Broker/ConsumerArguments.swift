import AMQP
import Base

/// What the arguments of a consumer that is started come to. Others are kept and mean nothing.
struct ConsumerArguments {
  private(set) var priority: Int64 = 0
  /// How long its deliveries may stay unacknowledged, by these arguments and by those of its queue.
  private(set) var lockTime: LockTime?

  /// If all arguments have possible values.
  init(_ arguments: FieldTable, queue: Queue) throws(BrokerError) {
    var priority: Int64?
    for entry in arguments.entries {
      switch entry.name {
      case "x-priority":
        guard let number = entry.value.integer else {
          throw Self.invalid(entry.name, queue, QueueArguments.noInteger(entry.value))
        }
        priority = priority ?? number
      case LockTimes.lockArgument, LockTimes.consumerArgument:
        if let reason = QueueArguments.problem(entry.value, .life) {
          throw Self.invalid(entry.name, queue, reason)
        }
      case "x-cancel-on-ha-failover":
        guard case .bool = entry.value else {
          throw Self.invalid(entry.name, queue, "{unacceptable_type,\(entry.value.typeName)}")
        }
      case "x-stream-offset" where queue.feed == nil, "x-filter" where queue.feed == nil:
        throw .refusedForType(entry.name, queue: queue.name, in: queue.vhost.name, type: "classic")
      default: break
      }
    }
    self.priority = priority ?? 0
    lockTime = queue.lockTimes.ofConsumer(with: LockTimes(arguments))
  }

  private static func invalid(_ name: Name, _ queue: Queue, _ reason: String) -> BrokerError {
    .refusedArgument(name, of: .subject(.queue(queue.name, in: queue.vhost.name)), reason: reason)
  }
}
