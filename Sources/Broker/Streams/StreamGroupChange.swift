import AMQP
import Base

/// That a group was moved within a partition.
public struct StreamGroupMove: Equatable, Sendable {
  public let partition: Int
  /// Before this offset all was acknowledged.
  public let from: UInt64
  public let to: UInt64
}

extension VirtualHost {
  /// Lets a group that has no members go on elsewhere, in one partition of its stream or in all: `place` is what a
  /// consumer says in `x-stream-offset`. `done` gets what came of it once the log durably has it.
  public func resetStreamGroup(
    _ group: Name, of stream: Name, to place: FieldValue, partition: Int?, for peer: Peer,
    _ done: @escaping (Result<[StreamGroupMove], StreamProblem>) -> Void
  ) {
    broker.chores.begin(
      StreamGroupReset(self, group, of: stream, to: place, partition: partition, done), for: peer)
  }

  /// Takes a group that has no members away; `done` gets what came of it once the log durably has it.
  public func deleteStreamGroup(
    _ group: Name, of stream: Name, _ done: @escaping (StreamProblem?) -> Void
  ) {
    do throws(StreamProblem) {
      let stream = try self.stream(stream)
      stream.delete(try stream.idleGroup(group))
    } catch {
      return done(error)
    }
    broker.whenDurable { failure in done(failure.map { .logFailed($0) }) }
  }
}

extension Stream {
  /// A group that may be changed by others than its members.
  fileprivate func idleGroup(_ name: Name) throws(StreamProblem) -> StreamGroup {
    guard let group = groups[name] else { throw .noSuchGroup }
    guard group.members.isEmpty else { throw .hasMembers(group.members.count) }
    if let reason = broker.journal.failure { throw .logFailed(reason) }
    return group
  }
}

/// Looks for the offsets first, which may take long where a stream has many segments, and changes them all at once,
/// unless somebody has joined meanwhile.
private final class StreamGroupReset: Chore {
  private let vhost: VirtualHost
  private let name: Name
  private let streamName: Name
  private let place: FieldValue
  private let partition: Int?
  private let done: (Result<[StreamGroupMove], StreamProblem>) -> Void
  /// What is being looked through.
  private var work: (stream: Stream, beginning: StreamReading.Beginning, partitions: Range<Int>)?
  private var offsets: [(partition: Int, offset: UInt64)] = []

  private static let segmentsPerStep = 64

  init(
    _ vhost: VirtualHost, _ name: Name, of stream: Name, to place: FieldValue, partition: Int?,
    _ done: @escaping (Result<[StreamGroupMove], StreamProblem>) -> Void
  ) {
    self.vhost = vhost
    self.name = name
    streamName = stream
    self.place = place
    self.partition = partition
    self.done = done
  }

  func advance(_ steps: inout Int) -> Bool {
    do throws(StreamProblem) {
      if work == nil { work = try found() }
      guard let (stream, beginning, partitions) = work else { return true }
      while steps > 0, offsets.count < partitions.count {
        let partition = stream.partitions[partitions.lowerBound + offsets.count]
        steps -= 1 + partition.segments.count / Self.segmentsPerStep
        offsets.append((partition.index, partition.offset(at: beginning)))
      }
      guard offsets.count == partitions.count else { return false }
      steps -= offsets.count
      try change(stream)
    } catch {
      done(.failure(error))
    }
    return true
  }

  private func found() throws(StreamProblem) -> (Stream, StreamReading.Beginning, Range<Int>) {
    let stream = try vhost.stream(streamName)
    _ = try stream.idleGroup(name)
    let all = stream.partitions.indices
    if let partition, !all.contains(partition) { throw .noSuchPartition(count: all.count) }
    guard let beginning = StreamReading.beginning(place, now: vhost.broker.now) else {
      throw .noPlace
    }
    return (stream, beginning, partition.map { $0..<$0 + 1 } ?? all)
  }

  private func change(_ stream: Stream) throws(StreamProblem) {
    guard !stream.isDeleted else { throw .noSuchStream }
    let group = try stream.idleGroup(name)
    let moves = offsets.map {
      StreamGroupMove(
        partition: $0.partition, from: group.committed($0.partition), to: $0.offset)
    }
    group.reset(offsets)
    let done = done
    vhost.broker.whenDurable { failure in
      done(failure.map { .failure(.logFailed($0)) } ?? .success(moves))
    }
  }
}
