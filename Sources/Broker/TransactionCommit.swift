import Base
import Journal

/// A commit. It is prepared in slices between turns: routes are found, lanes declared, and messages that are to
/// be sent on as dead letters are read back. Then all of it happens in one turn, and is one group of the log. What
/// that costs is known before, and has a limit, or the turn would be as long as the client likes.
final class TransactionCommit: Chore {
  private enum Outcome {
    case done(Committed)
    /// A mandatory message has no queue, and the client wants all or nothing then too.
    case rolledBack
    case failed(BrokerError)
  }

  /// Where a message goes.
  private struct Place {
    let route: Route
    /// Its properties if they are not stored as they came.
    let stripped: [UInt8]?
  }

  /// What comes to a queue that refuses what it has no room for.
  private struct Demand {
    let destination: Destination
    var count = 0
    var bytes = 0
  }

  private let channel: Channel
  private let peer: Peer
  private let broker: Broker
  private let transaction: Transaction
  private var outcome: Outcome?
  /// Its end is told, since the request has returned before.
  private var isAwaited = false
  private var places: [Place] = []
  private var answersPrepared = 0
  private var demands: [ObjectIdentifier: Demand] = [:]
  private var seen: Set<ObjectIdentifier> = []
  /// Where messages stand that are to be sent on, by their tags, and what keeps their blocks in memory, by
  /// where those begin.
  private var letters: [UInt64: UnsafeRawPointer] = [:]
  private var loans: [UnsafeRawPointer: BlockLoan] = [:]
  private var lentBytes = 0
  /// What it will cost.
  private var cost = 0
  /// Something of it goes into the log.
  private var isDurable = false
  /// Turns that were too long already.
  private var postponedCount = 0

  /// An empty queue begins a chunk of entries, and is looked at by its consumers; a dead letter is made.
  private static let stepsPerQueue = 8
  static let stepsPerLetter = 24
  private static let bytesPerStep = 1024
  private static let postponedMax = 3
  /// One that costs no more is done in any turn.
  private static let postponedMin = 512

  init(_ channel: Channel, _ transaction: Transaction) {
    self.channel = channel
    self.transaction = transaction
    peer = channel.peer
    broker = channel.broker
    broker.commitBegan()
  }

  /// For the request: what came of it, or that this goes on; nil if it was rolled back.
  func result() throws(BrokerError) -> Committed? {
    switch outcome {
    case .done(let committed): return committed
    case .rolledBack: return nil
    case .failed(let error): throw error
    case nil:
      isAwaited = true
      return .now
    }
  }

  func advance(_ steps: inout Int) -> Bool {
    // The channel was closed meanwhile: nothing happens.
    guard !channel.isClosed else {
      forget()
      return true
    }
    do throws(BrokerError) {
      guard try prepareMessages(&steps), try prepareAnswers(&steps), !isPostponed(&steps) else {
        return false
      }
      try requireAnswered()
      try requireRoom()
      steps -= cost
      outcome = isRoutable() ? .done(perform()) : .rolledBack
    } catch {
      outcome = .failed(error)
    }
    forget()
    tell()
    return true
  }

  private func forget() {
    for loan in loans.values { broker.journal.endLoan(loan) }
    loans = [:]
    letters = [:]
    peer.count(transaction: -lentBytes)
    lentBytes = 0
    places = []
    broker.commitEnded()
    if !channel.isClosed { transaction.forget(keeping: true) }
  }

  private func tell() {
    guard isAwaited, let outcome else { return }
    switch outcome {
    case .done(.now): break
    case .done(.whenDurable): peer.worked()
    case .rolledBack: channel.outlet.commitRolledBack(on: channel)
    case .failed(let error): channel.outlet.commitFailed(error, on: channel)
    }
  }

  /// A large commit begins with a turn, unless all turns are long.
  private func isPostponed(_ steps: inout Int) -> Bool {
    guard cost > Self.postponedMin, postponedCount < Self.postponedMax, broker.isTurnLong() else {
      return false
    }
    postponedCount += 1
    steps = 0
    return true
  }

  // MARK: Preparing

  private func prepareMessages(_ steps: inout Int) throws(BrokerError) -> Bool {
    let messages = transaction.messages
    while places.count < messages.count {
      guard steps > 0 else { return false }
      let message = messages[places.count]
      let (route, stripped) = try channel.routeAtCommit(message, transaction.content(of: message))
      steps -= 2 + route.count / 4
      let isSame = places.last?.route === route
      places.append(Place(route: route, stripped: stripped))
      let isLogged = route.placeCount(isPersistent: message.isPersistent) > 0
      if isLogged || message.isPersistent && !route.delaying.isEmpty {
        isDurable = true
      }
      try add((1 + message.bodySize / Self.bytesPerStep) * (1 + route.delaying.count))
      if channel.vhost.isTraced {
        let copied = min(message.bodySize, BrokerLimits.tracedBodyMax)
        try add(Self.stepsPerLetter + copied / Self.bytesPerStep)
      }
      if isSame, route.isPlain { try add(route.count) } else { try add(route, for: message) }
    }
    return true
  }

  private func add(_ route: Route, for message: Transaction.Message) throws(BrokerError) {
    // Before looking at each.
    try add(route.count)
    let content = transaction.content(of: message)
    for destination in route.destinations {
      let destination = destination.takeUnretainedValue()
      let id = ObjectIdentifier(destination)
      if seen.insert(id).inserted { try add(Self.stepsPerQueue) }
      guard !destination.isPlain else { continue }
      try add(destination.commitSteps)
      try destination.prepare(priority: MessageView.priority(in: content.properties.bytes))
      guard destination.mayRefuse else { continue }
      var demand = demands[id] ?? Demand(destination: destination)
      demand.count += 1
      demand.bytes += content.body.count
      demands[id] = demand
    }
  }

  private func add(_ steps: Int) throws(BrokerError) {
    cost += steps
    let max = broker.limits.transactionStepsMax
    guard cost <= max else { throw .limitReached(.transactionSteps(count: cost, max: max)) }
  }

  private func prepareAnswers(_ steps: inout Int) throws(BrokerError) -> Bool {
    let answers = transaction.answers
    while answersPrepared < answers.count {
      guard steps > 0 else { return false }
      steps -= 1
      let answer = answers[answersPrepared]
      guard let delivery = channel.unacknowledged.delivery(answer.tag) else {
        throw .lockExpired(answer.tag)
      }
      guard try prepare(answer, delivery, &steps) else { return false }
      answersPrepared += 1
    }
    return true
  }

  /// Returns whether nothing is to be waited for.
  private func prepare(
    _ answer: Transaction.Answer, _ delivery: PendingDelivery, _ steps: inout Int
  ) throws(BrokerError) -> Bool {
    let entry = delivery.entry
    if answer.kind != .giveBack, entry.isDurable { isDurable = true }
    guard answer.kind == .discard, let lane = delivery.lane?.takeUnretainedValue(), !lane.isDeleted,
      broker.deadLetters.isSentOn(entry, of: lane)
    else {
      try add(1)
      return true
    }
    isDurable = true
    let (journal, block) = (broker.journal, entry.location.block)
    guard let record = journal.pointer(entry.location) else {
      // What cannot be read is left to whoever looks after dead letters.
      if journal.damage(of: block) != nil || journal.hasFailed(block) { return true }
      journal.load(block)
      steps = 0
      return false
    }
    try add(Self.stepsPerLetter + MessageView(record).bodySize / Self.bytesPerStep)
    letters[answer.tag] = record
    try keep(block, from: record - Int(entry.location.offset))
    return true
  }

  /// Keeps a block in memory that begins there.
  private func keep(_ block: UInt32, from base: UnsafeRawPointer) throws(BrokerError) {
    guard loans[base] == nil else { return }
    let bytes = broker.journal.byteCount(of: block)
    loans[base] = broker.journal.lend(block)
    lentBytes += bytes
    peer.count(transaction: bytes)
    try broker.requireTransactionRoom()
  }

  /// Where a delivery that is answered has gone back to its queue meanwhile, nothing is done.
  private func requireAnswered() throws(BrokerError) {
    guard channel.locks != nil else { return }
    for answer in transaction.answers where !channel.unacknowledged.contains(answer.tag) {
      throw .lockExpired(answer.tag)
    }
  }

  /// Where a queue would refuse something, nothing is done.
  private func requireRoom() throws(BrokerError) {
    if isDurable, let reason = broker.journal.failure { throw .journalFailed(reason: reason) }
    for demand in demands.values where !demand.destination.isDeleted {
      let destination = demand.destination
      if destination.hasRoom(for: demand.count, bytes: demand.bytes) { continue }
      // Whoever can take what is ready takes it before.
      destination.serve()
      let hasRoom = destination.hasRoom(for: demand.count, bytes: demand.bytes)
      guard destination.isDeleted || hasRoom else {
        throw .refusesCommit(queue: destination.name, in: destination.vhost.name)
      }
    }
  }

  /// Whether all mandatory messages have queues, for a client that wants nothing to happen otherwise; those that
  /// have none go back to it.
  private func isRoutable() -> Bool {
    guard peer.rollsBackUnroutable else { return true }
    var isRoutable = true
    for (message, place) in zip(transaction.messages, places)
    where message.isMandatory && !hasTaker(message, place.route) {
      isRoutable = false
      let content = transaction.content(of: message)
      // With all that it came with.
      channel.unroutable(
        content.names.bytes, content.properties.bytes, content.body.bytes, message.draft,
        isMandatory: true)
    }
    return isRoutable
  }

  private func hasTaker(_ message: Transaction.Message, _ route: Route) -> Bool {
    if !route.delaying.isEmpty { return true }
    // Queues may have been deleted since it was routed.
    if route.destinations.contains(where: { $0._withUnsafeGuaranteedRef { !$0.isDeleted } }) {
      return true
    }
    let content = transaction.content(of: message)
    let names = content.names.bytes
    if ManagementAddress.isOf(names) {
      return channel.takesRequest(properties: content.properties.bytes)
    }
    return DirectReplies.token(names).map { channel.vhost.replyChannel($0) != nil } ?? false
  }

  // MARK: Performing

  private func perform() -> Committed {
    guard isDurable else {
      store()
      settle()
      return .now
    }
    if Sabotage.is(.commitsInParts) {
      store()
      settle()
    } else {
      broker.journal.group {
        store()
        if !Sabotage.is(.settlesBehindCommit) { settle() }
      }
      if Sabotage.is(.settlesBehindCommit) { settle() }
    }
    return .whenDurable(broker.journal.endPosition)
  }

  private func store() {
    for (message, prepared) in zip(transaction.messages, places) {
      let content = transaction.content(of: message)
      let place = stillNew(prepared, message, content)
      let kept = RecentMessages.copies(
        place.route.keepers, content.names.bytes, content.properties.bytes, nil,
        content.body.bytes)
      defer { broker.keep(kept, isPersistent: message.isPersistent) }
      channel.traceAtCommit(message, content, to: place.route)
      // Queues may have been deleted since it was routed.
      let isWhole = place.route.destinations.allSatisfy {
        $0._withUnsafeGuaranteedRef { !$0.isDeleted }
      }
      let route = isWhole ? place.route : place.route.only { !$0.isDeleted }
      if !route.delaying.isEmpty {
        channel.storeDelayedAtCommit(message, content, in: route)
      }
      if route.count > 0 || !route.delaying.isEmpty { broker.remember(route.remembrances) }
      if route.count == 0, !route.delaying.isEmpty { continue }
      if let stripped = place.stripped {
        channel.storeAtCommit(message, content, properties: stripped.span.bytes, in: route)
      } else {
        channel.storeAtCommit(message, content, properties: content.properties.bytes, in: route)
      }
    }
  }

  /// A message of the same commit may be one that this repeats.
  private func stillNew(
    _ place: Place, _ message: Transaction.Message, _ content: Transaction.Content
  ) -> Place {
    let isNew = place.route.remembrances.allSatisfy {
      !$0.values.has($0.value, now: broker.now)
    }
    guard !isNew else { return place }
    do throws(BrokerError) {
      let (route, stripped) = try channel.routeAtCommit(message, content)
      return Place(route: route, stripped: stripped)
    } catch {
      // It leads to less than before, which had no mistake.
      return Place(route: Route.nowhere, stripped: nil)
    }
  }

  /// The log is told at once of what leaves a lane here, with what left it before.
  private func settle() {
    var lanes: [Lane] = []
    for answer in transaction.answers {
      guard let delivery = channel.unacknowledged.remove(answer.tag) else {
        invariantFailed("a commit answers a delivery that has left its channel")
      }
      if let lane = delivery.lane?.takeUnretainedValue(), lanes.last !== lane { lanes.append(lane) }
      switch answer.kind {
      case .acknowledge: channel.settle(delivery)
      case .giveBack: channel.giveBack(delivery)
      case .discard: channel.discard(delivery, kept: letters[answer.tag])
      }
    }
    channel.creditLine.move()
    // A log that has failed is told nothing.
    guard isDurable else { return }
    for lane in lanes { lane.logProgress() }
  }
}
