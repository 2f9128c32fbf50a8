import Base
import Journal

/// Messages for plain destinations: each is copied once, and every queue gets an entry.
extension Broker {
  struct StoredMessage {
    let location: RecordLocation
    let record: UnsafeRawPointer
    /// Where the destinations go.
    let rest: UnsafeMutableRawPointer
  }

  /// Copies a message into the log's current block, or into the transient one.
  @inline(__always)
  func appendMessage(
    names: RawSpan, properties: RawSpan, body: RawSpan, destinations: Int, isDurable: Bool
  ) -> StoredMessage {
    let fixed = MessageRecord.fixedBytes
    let contentSize = fixed &+ names.byteCount &+ properties.byteCount &+ body.byteCount
    let size = contentSize &+ destinations &* MessagePlace.size
    let word = UInt32(truncatingIfNeeded: body.byteCount)
    let kind = BrokerRecord.Kind.message.rawValue
    let (location, payload) =
      isDurable
      ? journal.append(kind: kind, word: word, payloadSize: size)
      : journal.appendTransient(kind: kind, word: word, payloadSize: size)
    let place = writeHead(at: payload, names, properties, destinations)
    return StoredMessage(
      location: location, record: UnsafeRawPointer(payload - Record.headerSize),
      rest: Self.copy(body, to: place))
  }

  /// All that stands before the body. Returns where that begins.
  @inline(__always)
  func writeHead(
    at payload: UnsafeMutableRawPointer, _ names: RawSpan, _ properties: RawSpan,
    _ destinations: Int
  ) -> UnsafeMutableRawPointer {
    MessageRecord.write(
      at: payload, propertiesSize: UInt32(properties.byteCount),
      destinationCount: UInt32(destinations), storedAt: UInt64(bitPattern: now))
    let place = Self.copy(names, to: payload + MessageRecord.fixedBytes)
    return Self.copy(properties, to: place)
  }

  @inline(__always)
  private static func copy(
    _ bytes: RawSpan, to place: UnsafeMutableRawPointer
  ) -> UnsafeMutableRawPointer {
    bytes.withUnsafeBytes { source in
      if source.count > 0 {
        place.copyMemory(
          from: source.baseAddress.unsafelyUnwrapped, byteCount: source.count)
      }
    }
    return place + bytes.byteCount
  }

  /// Stores a message once and puts an entry into every queue of the route, which is a plain one.
  @inline(__always)
  func store(
    names: RawSpan, properties: RawSpan, body: RawSpan, in route: Route, isDurable: Bool
  ) {
    let message = appendMessage(
      names: names, properties: properties, body: body,
      destinations: isDurable ? route.durableCount : 0, isDurable: isDurable)
    enqueue(message, in: route, isDurable)
  }

  @inline(__always)
  func enqueue(_ message: StoredMessage, in route: Route, _ isDurable: Bool) {
    journal.retain(message.location.block, count: route.count)
    if route.count == 1 {
      route.destinations[0]._withUnsafeGuaranteedRef {
        enqueue(message, in: $0.plainQueue, isDurable, at: message.rest)
      }
      return
    }
    var place = message.rest
    for destination in route.destinations {
      destination._withUnsafeGuaranteedRef { destination in
        let queue = destination.plainQueue
        enqueue(message, in: queue, isDurable && queue.isDurable, at: place)
        if isDurable, queue.isDurable { place += MessagePlace.size }
      }
    }
  }

  @inline(__always)
  private func enqueue(
    _ message: StoredMessage, in queue: Queue, _ isDurable: Bool,
    at place: UnsafeMutableRawPointer
  ) {
    let lane = queue.lane
    if isDurable {
      MessagePlace(lane: lane.id, sequence: lane.nextSequence).write(at: place)
    }
    lane.enqueue(message.location, flags: isDurable ? .durable : [])
    queue.touch()
  }
}
