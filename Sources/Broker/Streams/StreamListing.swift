import AMQP
import Base

/// What is told of a stream as a whole.
public struct StreamSummary {
  public let name: Name
  public let partitionCount: Int
  /// Records that are kept.
  public let recordCount: Int
  public let segmentBytes: Int
  public let groupCount: Int
  public let consumerCount: Int

  init(_ stream: Stream) {
    name = stream.name
    partitionCount = stream.partitions.count
    recordCount = stream.readyCount
    segmentBytes = stream.partitions.reduce(0) { $0 + $1.segmentBytes }
    groupCount = stream.groupCount
    consumerCount = stream.consumerCount
  }
}

/// Some of a virtual host's streams, in the order of their names.
public struct StreamPage {
  public internal(set) var streams: [StreamSummary] = []
  /// The last of them, if there are more.
  public internal(set) var next: Name?
}

/// What is told of a stream's partition.
public struct PartitionSummary {
  public let index: Int
  public let firstOffset: UInt64
  /// Of the next record that is durable.
  public let nextOffset: UInt64
  public let recordCount: Int
  /// Records that have not moved into segments.
  public let recentCount: Int
  public let segmentCount: Int
  public let segmentBytes: Int
  /// See `Partition.oldestDate`.
  public let oldestDate: Int64?

  init(_ partition: Partition) {
    index = partition.index
    firstOffset = partition.start
    nextOffset = partition.visibleEnd
    recordCount = partition.count
    recentCount = partition.recentCount
    segmentCount = partition.segments.count
    segmentBytes = partition.segmentBytes
    oldestDate = partition.oldestDate
  }
}

/// What is told of a stream and all its partitions.
public struct StreamDescription {
  public let summary: StreamSummary
  public let arguments: FieldTable
  public let partitions: [PartitionSummary]

  init(_ stream: Stream) {
    summary = StreamSummary(stream)
    arguments = stream.arguments
    partitions = stream.partitions.map { PartitionSummary($0) }
  }
}

/// Why something that is asked of a stream is not done.
public enum StreamProblem: Error, Equatable {
  case noSuchStream
  /// The name is that of a queue.
  case isQueue
  case noSuchGroup
  /// The group has so many members, and would have to have none.
  case hasMembers(Int)
  /// Partitions of the stream, among which the one that is meant is not.
  case noSuchPartition(count: Int)
  /// The stream has so many partitions, and with those that are asked for more than any may have.
  case tooManyPartitions(present: Int, max: Int)
  /// Memory or numbers are used up.
  case noRoom
  /// It names no place in a stream.
  case noPlace
  /// The log has failed: whether a restart finds what was asked for is not known.
  case logFailed(String)
}

extension VirtualHost {
  func stream(_ name: Name) throws(StreamProblem) -> Stream {
    guard let found = destinations[name] else { throw .noSuchStream }
    guard let stream = found as? Stream else { throw .isQueue }
    return stream
  }

  /// Finds the streams whose names come behind one, at most so many.
  public func listStreams(
    behind name: Name?, atMost limit: Int, for peer: Peer, _ done: @escaping (StreamPage) -> Void
  ) {
    let limit = min(limit, BrokerLimits.streamPageMax)
    broker.chores.begin(
      StreamListing(self, behind: name, atMost: limit, for: peer, done), for: peer)
  }

  /// Describes a stream.
  public func describeStream(
    _ name: Name, for peer: Peer,
    _ done: @escaping (Result<StreamDescription, StreamProblem>) -> Void
  ) {
    broker.chores.begin(StreamDescribing(self, name, done), for: peer)
  }
}

/// Collects a page: first the streams whose names come next, then what is told of them.
private final class StreamListing: Chore {
  private let vhost: VirtualHost
  private let name: Name?
  private let limit: Int
  private let peer: Peer
  private let done: (StreamPage) -> Void
  /// The broker's partitions before this one are still to be looked at; one that takes the place of another that
  /// was deleted was seen.
  private var place = Int.max
  /// In the order of their names, and one more than is wanted.
  private var found: [Stream] = []
  private var page = StreamPage()
  /// Of those that were found, the next to be told of.
  private var next = 0

  private static let stepsPerStream = 8
  private static let partitionsPerStep = 8

  init(
    _ vhost: VirtualHost, behind name: Name?, atMost limit: Int, for peer: Peer,
    _ done: @escaping (StreamPage) -> Void
  ) {
    self.vhost = vhost
    self.name = name
    self.limit = limit
    self.peer = peer
    self.done = done
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0, !peer.isClosed {
      if place > 0 {
        lookAtSome(&steps)
      } else if next < min(found.count, limit) {
        let stream = found[next]
        next += 1
        steps -= Self.stepsPerStream + stream.partitions.count / Self.partitionsPerStep
        if !stream.isDeleted { page.streams.append(StreamSummary(stream)) }
      } else {
        if found.count > limit { page.next = found[limit - 1].name }
        done(page)
        return true
      }
    }
    if peer.isClosed { done(page) }
    return peer.isClosed
  }

  private func lookAtSome(_ steps: inout Int) {
    steps -= 1
    for _ in 0..<Self.partitionsPerStep {
      place = min(place, vhost.broker.partitions.count) - 1
      guard place >= 0 else {
        place = 0
        return
      }
      let partition = vhost.broker.partitions[place]
      // A stream's first one stands for it.
      if partition.index == 0, partition.stream.vhost === vhost {
        steps -= 1
        take(partition.stream)
      }
    }
  }

  private func take(_ stream: Stream) {
    if let name, stream.name <= name { return }
    let index = found.indices.partition { found[$0].name < stream.name }
    guard index <= limit, index == found.count || found[index] !== stream else { return }
    found.insert(stream, at: index)
    if found.count > limit + 1 { found.removeLast() }
  }
}

private final class StreamDescribing: Chore {
  private let vhost: VirtualHost
  private let name: Name
  private let done: (Result<StreamDescription, StreamProblem>) -> Void

  private static let stepsPerPartition = 4

  init(
    _ vhost: VirtualHost, _ name: Name,
    _ done: @escaping (Result<StreamDescription, StreamProblem>) -> Void
  ) {
    self.vhost = vhost
    self.name = name
    self.done = done
  }

  func advance(_ steps: inout Int) -> Bool {
    do throws(StreamProblem) {
      let stream = try vhost.stream(name)
      steps -= Self.stepsPerPartition * stream.partitions.count
      done(.success(StreamDescription(stream)))
    } catch {
      done(.failure(error))
    }
    return true
  }
}
