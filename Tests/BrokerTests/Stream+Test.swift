import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A record as a reader gets it.
struct StreamRecord: Equatable {
  let offset: Int64?
  let partition: Int64?
  let skipped: Int64?
  let text: String
  let isRedelivered: Bool
  let tag: UInt64

  init(_ delivery: Delivery) throws {
    var reader = ByteReader(delivery.message.properties.span.bytes)
    let headers = try BasicProperties(from: &reader).headers ?? [:]
    offset = headers["x-stream-offset"]?.integer
    partition = headers["x-stream-partition"]?.integer
    skipped = headers["x-stream-skipped"]?.integer
    text = delivery.text
    isRedelivered = delivery.isRedelivered
    tag = delivery.tag
  }
}

/// A consumer of a stream. With a prefetch it acknowledges nothing by itself.
final class StreamReader {
  let broker: TestBroker
  let channel: Channel
  private let client: TestClient
  private var pending: [StreamRecord] = []
  private(set) var isCancelled = false

  init(
    _ broker: TestBroker, _ stream: Name = "s", from beginning: FieldValue? = .string("first"),
    partition: Int32? = nil, group: String? = nil, filter: String? = nil,
    arguments others: FieldTable = [:], prefetch: Int = 0
  ) throws {
    self.broker = broker
    client = broker.connect()
    channel = client.open()
    var arguments = others
    if let filter { arguments.entries.append(.init(name: "x-filter", value: .string(filter))) }
    if let beginning { arguments.entries.append(.init(name: "x-stream-offset", value: beginning)) }
    if let partition {
      arguments.entries.append(.init(name: "x-stream-partition", value: .int32(partition)))
    }
    if let group { arguments.entries.append(.init(name: "x-stream-group", value: .string(group))) }
    if prefetch > 0 { channel.setPrefetch(prefetch, isGlobal: false) }
    _ = try channel.consume(
      stream, tag: "r", isAutomatic: prefetch == 0, isExclusive: false, arguments: arguments)
  }

  private func collect() throws {
    for event in client.events() {
      if case .delivered(let delivery) = event { pending.append(try StreamRecord(delivery)) }
      if case .cancelled = event { isCancelled = true }
    }
  }

  /// The next records, at most so many; fewer if no more come.
  func read(_ count: Int) throws -> [StreamRecord] {
    var idleTurns = 0
    while pending.count < count, idleTurns < 12 {
      let before = pending.count
      broker.work(1)
      try collect()
      idleTurns = pending.count > before ? 0 : idleTurns + 1
    }
    defer { pending.removeFirst(min(count, pending.count)) }
    return Array(pending.prefix(count))
  }

  /// All that comes.
  func rest() throws -> [StreamRecord] { try read(.max) }

  /// What came without another turn.
  func taken() throws -> [StreamRecord] {
    try collect()
    defer { pending = [] }
    return pending
  }

  func close() { client.close() }
}

extension Channel {
  func declareStream(_ name: Name = "s", _ arguments: FieldTable = [:]) throws {
    var arguments = arguments
    arguments.entries.append(.init(name: "x-queue-type", value: .string("stream")))
    try declare(name, isDurable: true, arguments: arguments)
  }
}

extension TestBroker {
  func stream(_ name: Name = "s") -> Stream? { vhost.destinations[name] as? Stream }

  func partition(_ index: Int = 0, of name: Name = "s") throws -> Partition {
    try #require(stream(name)).partitions[index]
  }

  /// Names of the files of segments.
  func streamFiles(_ suffix: String = ".batches") throws -> [String] {
    let directory = directory.path + "/" + PartitionFiles.directory
    guard FileSystem.exists(directory) else { return [] }
    return try FileSystem.list(directory).filter { $0.hasSuffix(suffix) }
  }

  /// All that a reader gets of a stream with one partition, with its offsets.
  func readAll(_ name: Name = "s") throws -> [StreamRecord] {
    let reader = try StreamReader(self, name)
    defer { reader.close() }
    return try reader.rest()
  }

  /// Expects that a stream with one partition has these records from an offset on.
  func expect(
    _ texts: [String], from offset: Int64 = 0, in name: Name = "s",
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let found = try readAll(name)
    #expect(found.map(\.text) == texts, sourceLocation: sourceLocation)
    #expect(
      found.map(\.offset) == (0..<found.count).map { offset + Int64($0) },
      sourceLocation: sourceLocation)
  }
}
