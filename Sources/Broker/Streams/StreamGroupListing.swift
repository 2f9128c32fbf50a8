import AMQP
import Base

/// Where a group of consumers is in a partition.
public struct StreamGroupPlace {
  public let partition: Int
  /// All records before this one are acknowledged.
  public let committed: UInt64
  public let end: UInt64
  public let lag: UInt64
  /// Who reads it; nil if that is nobody.
  public let reader: Reader?

  public struct Reader {
    public let consumer: Name
    public let connection: String
    public let user: Name
  }

  init(_ partition: Partition, _ group: StreamGroup) {
    self.partition = partition.index
    committed = group.committed(partition.index)
    end = partition.visibleEnd
    lag = group.lag(partition.index)
    reader = group.holder(partition.index)?.consumer.map {
      let peer = $0.channel.peer
      return Reader(consumer: $0.tag, connection: peer.name, user: peer.user)
    }
  }
}

/// A group of consumers of a stream, with all or some of its partitions.
public struct StreamGroupDescription {
  public let name: Name
  public let memberCount: Int
  /// Of all its partitions.
  public let lag: UInt64
  public internal(set) var places: [StreamGroupPlace] = []

  init(_ group: StreamGroup, partitionCount: Int) {
    name = group.name
    memberCount = group.members.count
    lag = (0..<partitionCount).reduce(0) { $0 + group.lag($1) }
  }
}

/// Where a list of groups goes on: with which partition of the group of this name, or of the one behind it.
public struct StreamGroupCursor: Sendable {
  let group: Name
  let partition: Int

  init(group: Name, partition: Int) {
    self.group = group
    self.partition = partition
  }

  /// The beginning.
  public init() { self.init(group: "", partition: 0) }

  /// Reads what `text` writes.
  public init?(_ text: String) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 2, let partition = Int(parts[0]), partition >= 0,
      let bytes = Self.bytes(parts[1])
    else { return nil }
    self.init(group: Name(bytes), partition: partition)
  }

  private static func bytes(_ digits: Substring) -> [UInt8]? {
    let digits = Array(digits.utf8)
    guard digits.count.isMultiple(of: 2), digits.count <= 2 * Name.sizeMax else { return nil }
    var bytes: [UInt8] = []
    for place in stride(from: 0, to: digits.count, by: 2) {
      let pair = digits[place..<place + 2]
      guard pair.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }),
        let byte = UInt8(String(decoding: pair, as: UTF8.self), radix: 16)
      else { return nil }
      bytes.append(byte)
    }
    return bytes
  }

  /// A name may be any bytes.
  public var text: String {
    group.bytes.reduce(into: "\(partition).") { text, byte in
      let digits = String(byte, radix: 16)
      text += digits.count == 1 ? "0" + digits : digits
    }
  }
}

/// Some of a stream's groups of consumers, in the order of their names.
public struct StreamGroupPage {
  public internal(set) var groups: [StreamGroupDescription] = []
  /// Where the next page begins; nil if this is the last one.
  public internal(set) var next: StreamGroupCursor?
}

extension VirtualHost {
  /// Tells of the groups of a stream, or of one of them, with at most so many partitions of all together.
  public func listStreamGroups(
    of stream: Name, only group: Name?, from cursor: StreamGroupCursor, atMost limit: Int,
    for peer: Peer, _ done: @escaping (Result<StreamGroupPage, StreamProblem>) -> Void
  ) {
    let limit = min(limit, BrokerLimits.streamPageMax)
    broker.chores.begin(
      StreamGroupListing(
        self, stream, only: group, from: cursor, atMost: limit, for: peer, done),
      for: peer)
  }
}

/// Collects a page, a group in each slice at least.
private final class StreamGroupListing: Chore {
  private let vhost: VirtualHost
  private let name: Name
  private let group: Name?
  private var cursor: StreamGroupCursor
  private let limit: Int
  private let peer: Peer
  private let done: (Result<StreamGroupPage, StreamProblem>) -> Void
  private var page = StreamGroupPage()
  /// So many partitions are in the page.
  private var count = 0
  /// Names of the groups that are still to come, the next one last; nil before they were looked for.
  private var names: [Name]?

  private static let stepsPerPlace = 8

  init(
    _ vhost: VirtualHost, _ name: Name, only group: Name?, from cursor: StreamGroupCursor,
    atMost limit: Int, for peer: Peer,
    _ done: @escaping (Result<StreamGroupPage, StreamProblem>) -> Void
  ) {
    self.vhost = vhost
    self.name = name
    self.group = group
    self.cursor = cursor
    self.limit = limit
    self.peer = peer
    self.done = done
  }

  func advance(_ steps: inout Int) -> Bool {
    do throws(StreamProblem) {
      while steps > 0, !peer.isClosed {
        let stream = try vhost.stream(name)
        if names == nil {
          names = try wanted(stream)
          steps -= names?.count ?? 0
        }
        guard let next = names?.popLast() else { return finish() }
        // It may have been deleted since.
        guard let found = stream.groups[next] else { continue }
        guard take(found, of: stream, &steps) else { return finish() }
      }
      return peer.isClosed ? finish() : false
    } catch {
      done(.failure(error))
      return true
    }
  }

  private func wanted(_ stream: Stream) throws(StreamProblem) -> [Name] {
    if let group {
      guard stream.groups[group] != nil else { throw .noSuchGroup }
      return cursor.group <= group ? [group] : []
    }
    return stream.groups.keys.filter { $0 >= cursor.group }.sorted(by: >)
  }

  /// Returns false if the page is full.
  private func take(_ group: StreamGroup, of stream: Stream, _ steps: inout Int) -> Bool {
    guard count < limit else {
      page.next = StreamGroupCursor(group: group.name, partition: 0)
      return false
    }
    let partitions = stream.partitions
    let first = group.name == cursor.group ? min(cursor.partition, partitions.count) : 0
    let end = min(partitions.count, first + limit - count)
    steps -= partitions.count + Self.stepsPerPlace * (end - first)
    guard first < end else { return true }
    var found = StreamGroupDescription(group, partitionCount: partitions.count)
    found.places = partitions[first..<end].map { StreamGroupPlace($0, group) }
    page.groups.append(found)
    count += end - first
    guard end < partitions.count else { return true }
    page.next = StreamGroupCursor(group: group.name, partition: end)
    return false
  }

  private func finish() -> Bool {
    done(.success(page))
    return true
  }
}
