import AMQP
import Base

/// What a consumer of a stream asks for: which partitions, and from where on.
struct StreamReading {
  enum Beginning: Equatable {
    case first
    /// The last record that there is.
    case last
    /// What comes from now on.
    case next
    case offset(UInt64)
    /// So many records before the end.
    case before(UInt64)
    /// The first record that was stored at this date or later, in milliseconds since 1970.
    case date(Int64)

    var date: Int64? { if case .date(let date) = self { date } else { nil } }
  }

  /// The group whose member the consumer is to be.
  private(set) var group: Name?
  private(set) var beginning = Beginning.next
  private(set) var partitions: [Partition]
  /// It reads all partitions, also those that the stream gets later.
  private(set) var readsAll = true
  /// What of the records it is to get; nil if that is all of them.
  let selection: StreamSelection?

  init(_ arguments: FieldTable, of stream: Stream) throws(BrokerError) {
    let holder = BrokerError.ArgumentHolder.subject(.queue(stream.name, in: stream.vhost.name))
    func refused(_ argument: Name, _ reason: String) -> BrokerError {
      .refusedArgument(argument, of: holder, reason: reason)
    }
    if arguments["x-priority"] != nil {
      throw .refusedForType(
        "x-priority", queue: stream.name, in: stream.vhost.name, type: "stream")
    }
    partitions = stream.partitions
    selection = try StreamSelection(arguments, of: holder)
    if let wanted = arguments["x-stream-partition"] {
      guard let number = wanted.integer else {
        throw refused("x-stream-partition", QueueArguments.noInteger(wanted))
      }
      guard let index = Int(exactly: number), stream.partitions.indices.contains(index) else {
        throw refused(
          "x-stream-partition",
          "\"the stream has partitions 0 to \(stream.partitions.count - 1), not \(number)\"")
      }
      partitions = [stream.partitions[index]]
      readsAll = false
    }
    if let wanted = arguments["x-stream-group"] {
      guard case .string(let bytes) = wanted, (1...255).contains(bytes.count) else {
        throw refused("x-stream-group", "\"expected a name of 1 to 255 bytes\"")
      }
      guard arguments["x-stream-partition"] == nil else {
        throw refused("x-stream-group", "\"a group's members share all partitions\"")
      }
      group = Name(bytes)
    }
    guard let wanted = arguments["x-stream-offset"] else { return }
    guard let found = Self.beginning(wanted, now: stream.broker.now) else {
      throw refused("x-stream-offset", "{invalid_offset_arg,\(wanted.typeName)}")
    }
    beginning = found
  }

  static func beginning(_ value: FieldValue, now: Int64) -> Beginning? {
    if let number = value.integer {
      return number < 0 ? .before(number.magnitude) : .offset(UInt64(number))
    }
    if case .timestamp(let seconds) = value {
      let (date, isTooLate) = Int64(clamping: seconds).multipliedReportingOverflow(by: 1000)
      return .date(isTooLate ? .max : date)
    }
    guard let text = value.text else { return nil }
    return switch text {
    case "first": .first
    case "last": .last
    case "next": .next
    default: StreamSettings.age(text).map { .date(now - $0) }
    }
  }
}

extension Partition {
  /// The offset at which a reader begins.
  func offset(at beginning: StreamReading.Beginning) -> UInt64 {
    switch beginning {
    case .first: start
    case .last: max(start, visibleEnd > 0 ? visibleEnd - 1 : 0)
    case .next: visibleEnd
    case .offset(let offset): max(start, offset)
    case .before(let count): max(start, count > visibleEnd ? 0 : visibleEnd - count)
    case .date(let date): offset(storedFrom: date)
    }
  }
}
