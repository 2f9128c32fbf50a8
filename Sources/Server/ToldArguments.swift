import AMQP
import Base
import Broker

/// Tells of arguments of queues that have no effect, such as misspelt ones: of each name once, however often and
/// by whomever queues are declared with it.
final class ToldArguments {
  /// More are not told: names are what clients make them.
  static let countMax = 64
  private var told: Set<Name> = []
  private let log: Log

  init(_ log: Log) {
    self.log = log
  }

  /// A queue was declared with these.
  func declared(_ queue: Name, in vhost: Name, with arguments: FieldTable) {
    guard !arguments.entries.isEmpty, told.count < Self.countMax else { return }
    for name in QueueArguments.withoutEffect(in: arguments)
    where told.count < Self.countMax && told.insert(name).inserted {
      log.info(
        "the argument '\(name)' has no effect, with which queue '\(queue)' in vhost '\(vhost)' was declared;"
          + " this is told once")
    }
  }
}
