import AMQP
import Base
import Filters

/// A message whose way is asked for.
public struct ExplainedMessage {
  let exchange: Name
  let key: Name
  let properties: BasicProperties
  let body: [UInt8]

  public init(exchange: Name, key: Name, properties: BasicProperties, body: [UInt8]) {
    self.exchange = exchange
    self.key = key
    self.properties = properties
    self.body = body
  }
}

extension VirtualHost {
  /// Finds out where a message would go that the peer publishes, and tells it when it is done. False if there is no
  /// such exchange.
  public func explain(
    _ message: ExplainedMessage, for peer: Peer, _ done: @escaping (RouteExplanation) -> Void
  ) -> Bool {
    guard let exchange = exchanges[message.exchange] else { return false }
    let explainer = RouteExplainer(self, exchange, message, user: peer.user, done)
    broker.chores.begin(explainer, for: peer)
    return true
  }
}

/// Goes from exchange to exchange, and at each over all of its bindings, in slices. What leads on is what routing
/// itself finds; each binding is tried by itself besides.
final class RouteExplainer: Chore {
  /// The message as filters and exchanges look at it.
  private struct Wire {
    let names: [UInt8]
    let properties: [UInt8]
    let headers: Range<Int>
    let body: [UInt8]

    init(_ message: ExplainedMessage) {
      var names = ByteBuffer()
      names.append(message.exchange)
      names.append(message.key)
      self.names = Array(names.readable)
      var block = ByteBuffer()
      message.properties.encode(into: &block)
      let bytes = Array(block.readable)
      let place = PropertyFlags.headers.place(in: bytes.span.bytes)
      properties = bytes
      headers = place ?? 0..<0
      body = message.body
    }

    var message: FilteredMessage {
      @_lifetime(borrow self)
      get {
        FilteredMessage(
          names: names.span.bytes, properties: properties.span.bytes, headers: headers,
          body: body.span.bytes)
      }
    }
  }

  private let vhost: VirtualHost
  private let message: ExplainedMessage
  private let user: Name
  private let done: (RouteExplanation) -> Void
  private let wire: Wire
  private var keys: [Name]
  private var trial: BindingTrial
  private var explanation = RouteExplanation()
  /// Exchanges that were reached; those before `next` were looked at.
  private var exchanges: [Exchange]
  private var exchangeIDs: Set<ObjectIdentifier>
  private var next = 0
  private var queues: [Destination] = []
  private var queueIDs: Set<ObjectIdentifier> = []
  /// What routing the message costs, which has a limit.
  private var routingSteps = 0

  /// The exchange whose bindings are being listed, and where it stands among its tables of bindings.
  private var current: Exchange?
  /// The binding that gets the message, where one is chosen.
  private var chosen: ObjectIdentifier?
  private var part = 0
  private var partCount = 0
  private var rest: ArraySlice<Binding> = []
  /// Of all exchanges together; and as they were before the current one.
  private var listed = Listed()
  private var listedBefore = Listed()

  private struct Listed {
    var takersCount = 0
    var othersCount = 0
    var bytes = 0
  }

  /// What an exchange costs, a binding that is looked at and one that is told, and a queue.
  private static let stepsPerExchange = 64
  private static let stepsPerBinding = 2
  private static let stepsPerLink = 16
  private static let stepsPerQueue = 8

  init(
    _ vhost: VirtualHost, _ exchange: Exchange, _ message: ExplainedMessage, user: Name,
    _ done: @escaping (RouteExplanation) -> Void
  ) {
    self.vhost = vhost
    self.message = message
    self.user = user
    self.done = done
    wire = Wire(message)
    keys = [message.key]
    trial = BindingTrial(keys: keys, in: vhost)
    exchanges = [exchange]
    exchangeIDs = [ObjectIdentifier(exchange)]
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0 {
      if current != nil {
        list(&steps)
      } else if next < exchanges.count {
        steps -= Self.stepsPerExchange
        visit(exchanges[next], &steps)
        next += 1
      } else {
        finish(&steps)
        return true
      }
    }
    return false
  }

  private func finish(_ steps: inout Int) {
    steps -= Self.stepsPerQueue * queues.count
    explanation.arrivals = queues.filter { !$0.isDeleted }.map {
      RouteExplanation.Arrival(
        queue: $0.name, isDurable: $0.isDurable, readyCount: $0.readyCount,
        consumerCount: $0.consumerCount, refusal: refusal(by: $0))
    }
    for index in explanation.stops.indices {
      explanation.stops[index].links.sort(by: RouteExplanation.Link.isFirst)
    }
    done(explanation)
  }

  private func refusal(by queue: Destination) -> RouteExplanation.Refusal? {
    let wire = wire
    var walk = vhost.newWalk(isWithoutMessage: false)
    if let seen = queue.seen, !walk.isNew(wire.message, to: seen, now: vhost.broker.now) {
      return .repeated
    }
    return queue.hasRoom(for: 1, bytes: message.body.count) ? nil : .full
  }

  // MARK: Exchanges

  private func visit(_ exchange: Exchange, _ steps: inout Int) {
    let wire = wire
    var stop = RouteExplanation.Stop(
      exchange: exchange.name, type: exchange.type, isInternal: exchange.isInternal,
      choice: exchange.kind.choice)
    stop.alternate = exchange.alternate.map {
      RouteExplanation.Alternate(exchange: $0, exists: vhost.exchanges[$0] != nil)
    }
    stop.bindingCount = exchange.bindings.count
    stop.ending = ending(at: exchange)
    if stop.ending == .routed {
      if exchange.recent != nil {
        var walk = vhost.newWalk(isWithoutMessage: false)
        stop.isKept = RecentMessages.wants(wire.message, &walk)
      }
      let walk = vhost.matches(exchange, keys: keys, wire.message)
      steps -= walk.steps + walk.destinations.count / 4
      routingSteps += walk.steps
      chosen = walk.chosen.map { ObjectIdentifier($0.takeUnretainedValue()) }
      follow(walk, from: exchange, &stop)
      let max = vhost.broker.limits.routingStepsMax
      if routingSteps > max {
        stop.ending = .refused(reason: "finding its queues takes more than \(max) steps")
      }
    }
    explanation.stops.append(stop)
    guard stop.ending == .routed else {
      // Where it is refused it goes nowhere at all.
      if case .refused = stop.ending { giveUp() }
      return
    }
    guard !exchange.name.isEmpty else { return }
    current = exchange
    part = 0
    partCount = exchange.bindings.partCount
    rest = []
    listedBefore = listed
  }

  private func giveUp() {
    queues = []
    exchanges.removeSubrange((next + 1)...)
  }

  private func ending(at exchange: Exchange) -> RouteExplanation.Ending {
    let wire = wire
    let message = wire.message
    do throws(BrokerError) {
      if next == 0 {
        if let reason = mistake(at: exchange) { return .refused(reason: reason) }
        let max = vhost.broker.limits.routingKeysMax
        if let more = try SenderSelection(in: message.headerTable, keysMax: max) {
          keys = more.keys(with: keys[0])
          trial = BindingTrial(keys: keys, in: vhost)
        }
      }
      if let seen = exchange.seen {
        var walk = vhost.newWalk(isWithoutMessage: false)
        if !walk.isNew(message, to: seen, now: vhost.broker.now) { return .repeated }
      }
      guard exchange.isDelaying else { return .routed }
      let delay = try MessageDelay.milliseconds(in: message.headerTable)
      return delay == 0 ? .routed : .delayed(milliseconds: delay)
    } catch {
      return .refused(reason: Self.words(error))
    }
  }

  /// Why the message could not be published at all.
  private func mistake(at exchange: Exchange) -> String? {
    if exchange.isInternal {
      return "an internal exchange takes messages from other exchanges only"
    }
    if let given = message.properties.userID, given != user {
      return "its user_id is '\(given)', and the user is '\(user)'"
    }
    guard let expiration = message.properties.expiration else { return nil }
    let isRight = MessageView.milliseconds(expiration.bytes.span.bytes) != nil
    return isRight ? nil : "its expiration '\(expiration)' is no number of milliseconds"
  }

  private static func words(_ error: BrokerError) -> String {
    if case .refusedDelay(let reason) = error { return "invalid header 'x-delay': \(reason)" }
    if case .refusedMessage(let reason) = error { return reason }
    if case .malformedProperties(let reason) = error { return reason }
    guard case .limitReached(.routingKeys(let count, let max)) = error else {
      invariantFailed("a message's headers are refused with another mistake: \(error)")
    }
    return "its headers CC and BCC have \(count) routing keys, and \(max) are allowed"
  }

  private func follow(
    _ walk: RouteWalk, from exchange: Exchange, _ stop: inout RouteExplanation.Stop
  ) {
    for found in walk.destinations {
      guard queues.count < BrokerLimits.explainedQueuesMax else {
        explanation.isCut = true
        break
      }
      let queue = found.takeUnretainedValue()
      if queueIDs.insert(ObjectIdentifier(queue)).inserted {
        queues.append(queue)
      } else {
        routingSteps += 1
      }
      guard exchange.name.isEmpty else { continue }
      stop.links.append(
        RouteExplanation.Link(
          destination: queue.name, isToExchange: false, key: queue.name, arguments: FieldTable(),
          fits: true, filter: nil, takes: true))
    }
    for next in walk.exchanges { add(next) }
    guard !walk.hasFound, let name = exchange.alternate, let alternate = vhost.exchanges[name]
    else { return }
    stop.alternate?.takes = true
    routingSteps += 1
    add(alternate)
  }

  private func add(_ exchange: Exchange) {
    guard !exchangeIDs.contains(ObjectIdentifier(exchange)) else { return }
    guard exchanges.count < BrokerLimits.explainedExchangesMax else {
      explanation.isCut = true
      return
    }
    exchangeIDs.insert(ObjectIdentifier(exchange))
    exchanges.append(exchange)
  }

  // MARK: Bindings

  /// Goes on with the bindings of the current exchange.
  private func list(_ steps: inout Int) {
    guard let exchange = current else { return }
    while steps > 0 {
      if let binding = rest.popFirst() {
        steps -= Self.stepsPerBinding
        if !binding.isGone, !binding.destination.isDeleted { list(binding, of: exchange, &steps) }
        continue
      }
      if exchange.bindings.partCount != partCount { beginAgain(exchange) }
      guard part < partCount else {
        current = nil
        return
      }
      rest = Array(exchange.bindings.part(part).values)[...]
      steps -= 1 + rest.count / 16
      part += 1
    }
  }

  /// The table was laid out anew meanwhile.
  private func beginAgain(_ exchange: Exchange) {
    partCount = exchange.bindings.partCount
    part = 0
    explanation.stops[explanation.stops.count - 1].links = []
    listed = listedBefore
  }

  private func list(_ binding: Binding, of exchange: Exchange, _ steps: inout Int) {
    let wire = wire
    let fits = trial.fits(binding, of: exchange, wire.message, &steps)
    var truth: RouteExplanation.FilterTruth?
    if let filter = binding.filter {
      var cost = 0
      switch filter.truth(of: wire.message, steps: &cost) {
      case true: truth = .isTrue
      case false: truth = .isFalse
      case nil: truth = .unknown
      }
      steps -= cost
    }
    let isChosen = exchange.kind.choice == .all || chosen == ObjectIdentifier(binding)
    let takes = isChosen && fits && (truth == nil || truth == .isTrue)
    guard hasRoom(for: binding, takes) else { return }
    steps -= Self.stepsPerLink
    explanation.stops[explanation.stops.count - 1].links.append(
      RouteExplanation.Link(
        destination: binding.destination.name, isToExchange: binding.destination.isExchange,
        key: binding.key, arguments: BindingTrial.table(binding.arguments), fits: fits,
        filter: truth, takes: takes))
  }

  private func hasRoom(for binding: Binding, _ takes: Bool) -> Bool {
    let names = binding.key.bytes.count + binding.destination.name.bytes.count
    let size = binding.arguments.count + names
    guard listed.bytes + size <= BrokerLimits.explainedBytesMax else { return false }
    if takes {
      guard listed.takersCount < BrokerLimits.explainedTakersMax else { return false }
      listed.takersCount += 1
    } else {
      guard listed.othersCount < BrokerLimits.explainedOthersMax else { return false }
      listed.othersCount += 1
    }
    listed.bytes += size
    return true
  }
}

extension RouteExplanation.Link {
  /// The order in which people look: what takes the message, what nearly does, and the rest.
  fileprivate static func isFirst(_ left: Self, _ right: Self) -> Bool {
    if left.takes != right.takes { return left.takes }
    if left.fits != right.fits { return left.fits }
    if left.destination != right.destination {
      return left.destination.bytes.lexicographicallyPrecedes(right.destination.bytes)
    }
    return left.key.bytes.lexicographicallyPrecedes(right.key.bytes)
  }
}

extension Exchange.Kind {
  /// How it finds the bindings that get a message.
  var choice: RouteExplanation.Choice {
    switch self {
    case .direct, .fanout, .topic, .headers, .deduplication, .recentHistory: .all
    case .consistentHash, .modulusHash: .hash
    case .random, .localRandom: .chance
    }
  }
}
