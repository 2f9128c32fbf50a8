import AMQP
import Base
import Broker
import JSON

/// `stream-list`, `stream-info`, `stream-groups`, `stream-reset`, `stream-group-delete` and `stream-add-partitions`:
/// streams and the groups of their consumers.
enum StreamCommands {
  static func list(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["limit", "cursor"])
    let limit = try fields.count("limit", max: BrokerLimits.streamPageMax)
    request.vhost.listStreams(
      behind: try fields.name("cursor"), atMost: limit ?? BrokerLimits.streamPageMax,
      for: request.peer
    ) { page in
      answer(request) { json in
        json.key("streams")
        json.array { json in
          for stream in page.streams {
            json.object { json in
              json.field("name", stream.name.description)
              json.field("partitions", stream.partitionCount)
              write(stream, into: &json)
            }
          }
        }
        if let next = page.next { json.field("next", next.description) }
      }
    }
  }

  static func info(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["stream"])
    let name = try needed("stream", fields)
    request.vhost.describeStream(name, for: request.peer) { result in
      answer(request, result, of: name, group: nil) { stream, json in
        json.field("name", name.description)
        write(stream.summary, into: &json)
        json.key("arguments")
        FieldJSON.write(stream.arguments, into: &json)
        json.key("partitions")
        json.array { json in
          for partition in stream.partitions { json.object { write(partition, into: &$0) } }
        }
      }
    }
  }

  static func groups(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["stream", "group", "limit", "cursor"])
    let name = try needed("stream", fields)
    let group = try fields.name("group")
    let limit = try fields.count("limit", max: BrokerLimits.streamPageMax)
    let cursor = try fields.cursor(reading: StreamGroupCursor.init(_:)) ?? StreamGroupCursor()
    request.vhost.listStreamGroups(
      of: name, only: group, from: cursor, atMost: limit ?? BrokerLimits.streamPageMax,
      for: request.peer
    ) { result in
      answer(request, result, of: name, group: group) { page, json in
        json.key("groups")
        json.array { json in
          for group in page.groups { json.object { write(group, into: &$0) } }
        }
        if let next = page.next { json.field("next", next.text) }
      }
    }
  }

  static func reset(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["stream", "group", "to", "time", "partition"])
    let (name, group) = (try needed("stream", fields), try needed("group", fields))
    let partition = try fields.number("partition", in: 0...Int.max)
    request.vhost.resetStreamGroup(
      group, of: name, to: try place(fields), partition: partition, for: request.peer
    ) { result in
      answer(request, result, of: name, group: group, partition: partition) { moves, json in
        json.key("partitions")
        json.array { json in
          for move in moves {
            json.object { json in
              json.field("partition", move.partition)
              json.field("from", move.from)
              json.field("to", move.to)
            }
          }
        }
      }
    }
  }

  static func deleteGroup(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["stream", "group"])
    let (name, group) = (try needed("stream", fields), try needed("group", fields))
    request.vhost.deleteStreamGroup(group, of: name) { problem in
      let result: Result<Void, StreamProblem> = problem.map { .failure($0) } ?? .success(())
      answer(request, result, of: name, group: group) { _, json in
        json.field("deleted", group.description)
      }
    }
  }

  static func addPartitions(
    _ request: ManagementRequest, _ json: JSONValue
  ) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["stream", "count"])
    let name = try needed("stream", fields)
    guard let count = try fields.number("count", in: 1...Int.max) else {
      throw RequestProblem(text: #"the "count" is missing"#)
    }
    request.vhost.addPartitions(count, toStream: name) { result in
      answer(request, result, of: name, group: nil) { total, json in
        json.field("name", name.description)
        json.field("partitions", total)
      }
    }
  }

  // MARK: Requests

  private static func needed(
    _ field: String, _ fields: RequestFields
  ) throws(RequestProblem) -> Name {
    guard let name = try fields.name(field) else {
      throw RequestProblem(text: #"the "\#(field)" is missing"#)
    }
    return name
  }

  /// As a consumer would say it in `x-stream-offset`.
  private static func place(_ fields: RequestFields) throws(RequestProblem) -> FieldValue {
    let time = try fields.number("time", in: 0...Int.max)
    guard let to = fields.value("to") else {
      guard let time else { throw RequestProblem(text: #"say where by "to", or by "time""#) }
      return .timestamp(UInt64(time))
    }
    guard time == nil else { throw RequestProblem(text: #""to" and "time" exclude each other"#) }
    switch to {
    case .string(let text): return .string(text)
    case .number(let word):
      guard let number = Int64(word) else { break }
      return .int64(number)
    case .null, .bool, .array, .object: break
    }
    throw RequestProblem(text: #""to" is \#(placeForms)"#)
  }

  private static let placeForms =
    #""first", "last", "next", an offset, a negative number or an interval such as "90m""#

  // MARK: Answers

  private static func answer(
    _ request: ManagementRequest, _ fields: (inout JSONWriter) -> Void
  ) {
    var json = JSONWriter()
    json.object(fields)
    request.answer(json.bytes)
  }

  private static func answer<Found>(
    _ request: ManagementRequest, _ result: Result<Found, StreamProblem>, of stream: Name,
    group: Name?, partition: Int? = nil, _ fields: (Found, inout JSONWriter) -> Void
  ) {
    switch result {
    case .success(let found): answer(request) { fields(found, &$0) }
    case .failure(let problem):
      request.answer(
        ManagementCommands.error(
          text(
            of: problem, stream: stream, group: group, partition: partition, in: request.vhost)))
    }
  }

  private static func text(
    of problem: StreamProblem, stream: Name, group: Name?, partition: Int?, in vhost: VirtualHost
  ) -> String {
    let group = "group '\(group?.description ?? "")'"
    return switch problem {
    case .noSuchStream: "no stream '\(stream)' in vhost '\(vhost.name)'"
    case .isQueue: "'\(stream)' in vhost '\(vhost.name)' is a queue, and no stream"
    case .noSuchGroup: "stream '\(stream)' has no \(group)"
    case .hasMembers(let count):
      "\(group) of stream '\(stream)' has \(count) member\(count == 1 ? "" : "s"): end"
        + " \(count == 1 ? "its consumer" : "their consumers") first"
    case .noSuchPartition(let count):
      "stream '\(stream)' has partitions 0 to \(count - 1), not \(partition ?? 0)"
    case .tooManyPartitions(let present, let max):
      "stream '\(stream)' has \(present) partitions, and may have \(max)"
    case .noRoom: "the broker has no room for more partitions"
    case .noPlace: #""to" is \#(placeForms)"#
    case .logFailed(let reason): "the log has failed: \(reason)"
    }
  }

  private static func write(_ stream: StreamSummary, into json: inout JSONWriter) {
    json.field("records", stream.recordCount)
    json.field("segment_bytes", stream.segmentBytes)
    json.field("groups", stream.groupCount)
    json.field("consumers", stream.consumerCount)
  }

  private static func write(_ partition: PartitionSummary, into json: inout JSONWriter) {
    json.field("partition", partition.index)
    json.field("first_offset", partition.firstOffset)
    json.field("next_offset", partition.nextOffset)
    json.field("records", partition.recordCount)
    json.field("records_in_log", partition.recentCount)
    json.field("segments", partition.segmentCount)
    json.field("segment_bytes", partition.segmentBytes)
    if let date = partition.oldestDate { json.field("oldest_before", date) }
  }

  private static func write(_ group: StreamGroupDescription, into json: inout JSONWriter) {
    json.field("name", group.name.description)
    json.field("members", group.memberCount)
    json.field("lag", group.lag)
    json.key("partitions")
    json.array { json in
      for place in group.places {
        json.object { json in
          json.field("partition", place.partition)
          json.field("committed_offset", place.committed)
          json.field("end_offset", place.end)
          json.field("lag", place.lag)
          guard let reader = place.reader else { return }
          json.field("consumer", reader.consumer.description)
          json.field("connection", reader.connection)
          json.field("user", reader.user.description)
        }
      }
    }
  }
}
