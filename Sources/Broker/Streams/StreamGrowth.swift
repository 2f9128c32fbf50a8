import AMQP
import Base
import Journal

extension VirtualHost {
  /// Gives a stream so many more partitions. `done` gets how many it has then, once the log durably has them.
  public func addPartitions(
    _ count: Int, toStream name: Name, _ done: @escaping (Result<Int, StreamProblem>) -> Void
  ) {
    let total: Int
    do throws(StreamProblem) {
      let stream = try self.stream(name)
      try stream.addPartitions(count)
      total = stream.partitions.count
      broker.chores.begin(StreamGrowth(stream), for: nil)
    } catch {
      return done(.failure(error))
    }
    broker.whenDurable { failure in
      done(failure.map { .failure(.logFailed($0)) } ?? .success(total))
    }
  }
}

extension Stream {
  /// All of them or none, also after a crash. Messages go there at once; readers and groups are told by
  /// `StreamGrowth`.
  fileprivate func addPartitions(_ count: Int) throws(StreamProblem) {
    let limit = StreamSettings.partitionsMax
    guard 1...limit ~= count, partitions.count + count <= limit else {
      throw .tooManyPartitions(present: partitions.count, max: limit)
    }
    if let reason = broker.journal.failure { throw .logFailed(reason) }
    var ids: [UInt32] = []
    do throws(BrokerError) {
      try broker.requireRoom(for: "partitions")
      while ids.count < count { ids.append(try broker.takeLaneID(isDurable: true)) }
    } catch {
      throw .noRoom
    }
    broker.catalog.append(ids.map { addPartition(id: $0) }, of: self)
  }
}

/// Lets readers of all of a stream's partitions, and members of its groups, read those that were added. Who begins
/// to read meanwhile has them already.
private final class StreamGrowth: Chore {
  private let stream: Stream
  /// Of readers, whose consumers may go meanwhile.
  private var queues: [Queue]
  private var groups: [StreamGroup]

  private static let stepsPerPartition = 4
  private static let placesPerStep = 16

  init(_ stream: Stream) {
    self.stream = stream
    queues = stream.readerQueues
    groups = Array(stream.groups.values)
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0, !stream.isDeleted {
      if let queue = queues.popLast() {
        steps -= 1 + Self.stepsPerPartition * (queue.feed?.readMore() ?? 0)
      } else if let group = groups.popLast() {
        steps -= 1 + Self.stepsPerPartition * group.readMore()
        steps -= stream.partitions.count / Self.placesPerStep
      } else {
        return true
      }
    }
    return stream.isDeleted
  }
}
