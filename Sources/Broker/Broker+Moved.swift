import AMQP
import Base
import Journal

/// Messages that the broker stores of its own accord: no publisher waits for them.
extension Broker {
  /// A message that was taken from its lane and is not locked leaves it for good.
  func bury(_ entry: Entry, of lane: Lane, for reason: DeathReason) {
    deadLetters.bury(entry, of: lane, for: reason)
  }

  /// Stores a message that no publisher waits for.
  func storeMoved(
    names: RawSpan, properties: RawSpan, body: RawSpan, in route: Route, isPersistent: Bool
  ) {
    let kept = RecentMessages.copies(route.keepers, names, properties, nil, body)
    defer { keep(kept, isPersistent: isPersistent) }
    guard route.count > 0 || !route.delaying.isEmpty else { return }
    do throws(BrokerError) {
      if isPersistent { try awaitMove(in: route, priority: MessageView.priority(in: properties)) }
      for exchange in route.delaying {
        try storeDelayed(
          names: names, properties: properties, body: body, nil, at: exchange,
          isPersistent: isPersistent)
      }
      if route.isPlain, !MessageView.isMarked(properties) {
        if route.count > 0 {
          store(
            names: names, properties: properties, body: body, in: route,
            isDurable: route.placeCount(isPersistent: isPersistent) > 0)
        }
      } else {
        // What a full queue refuses is gone, as it would be for a publisher.
        let hasRoom = try storeWithSettings(
          names: names, properties: properties, body: body, nil, in: route,
          isPersistent: isPersistent)
        guard hasRoom else { return }
      }
      remember(route.remembrances)
    } catch {
      // No number is left for a lane, or what waits is to wait longer than anything may.
    }
  }

  /// Stores the letter of a message that is like those before it.
  @inline(__always)
  func store(_ letter: LetterModel.Letter, as model: LetterModel) {
    let route = model.route
    let isDurable = letter.isPersistent && route.durableCount > 0
    let destinations = isDurable ? route.durableCount : 0
    let size =
      MessageRecord.fixedBytes &+ model.size(of: letter) &+ destinations &* MessagePlace.size
    let kind = BrokerRecord.Kind.message.rawValue
    let word = UInt32(truncatingIfNeeded: letter.bodyBytes)
    let (location, payload) =
      isDurable
      ? journal.append(kind: kind, word: word, payloadSize: size)
      : journal.appendTransient(kind: kind, word: word, payloadSize: size)
    MessageRecord.write(
      at: payload, propertiesSize: UInt32(truncatingIfNeeded: letter.propertiesBytes),
      destinationCount: UInt32(destinations), storedAt: UInt64(bitPattern: now))
    let rest = model.write(letter, at: payload + MessageRecord.fixedBytes)
    if letter.isPersistent {
      for destination in route.destinations {
        destination._withUnsafeGuaranteedRef {
          if $0.isDurable { $0.plainQueue.lane.awaitMove() }
        }
      }
    }
    enqueue(
      StoredMessage(
        location: location, record: UnsafeRawPointer(payload - Record.headerSize), rest: rest),
      in: route, isDurable)
  }

  private func awaitMove(in route: Route, priority: UInt8) throws(BrokerError) {
    for destination in route.destinations {
      let destination = destination.takeUnretainedValue()
      guard destination.isDurable, !destination.isDeleted else { continue }
      try destination.awaitMove(priority: priority)
    }
  }

  /// A message waits for its time at an exchange that delays.
  func storeDelayed(
    names: RawSpan, properties: RawSpan, body: RawSpan, _ draft: RecordDraft?,
    at delaying: DelayingExchange, isPersistent: Bool
  ) throws(BrokerError) {
    let delays = try delaying.vhost.neededDelays()
    let (exchange, key) = RouteMemo.split(names)
    guard exchange != delaying.name else {
      return try delays.store(
        names: names, properties: properties, body: body, draft, for: delaying.milliseconds,
        isPersistent: isPersistent)
    }
    // It came over bindings, and goes on from there.
    var moved = ByteBuffer()
    moved.append(delaying.name)
    moved.append(key)
    let bytes = Array(moved.readable)
    try delays.store(
      names: bytes.span.bytes, properties: properties, body: body, for: delaying.milliseconds,
      isPersistent: isPersistent)
  }
}
