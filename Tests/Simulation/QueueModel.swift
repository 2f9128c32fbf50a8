/// What is known of whether something survives a crash: a place in the log, and whether a client was
/// promised that the log is durable up to there.
struct Durability {
  /// `.max` while it is not in the log.
  var position: Int
  var isPromised = false

  func isSure(_ bound: DurableBound) -> Bool {
    (isPromised && bound.keepsPromises) || position <= bound.position
  }
}

/// What a crash leaves.
struct DurableBound {
  /// The log is there up to this position.
  let position: Int
  /// What clients were promised is there, too; not when the power went and nothing had been synced.
  var keepsPromises = true
}

/// A message in one queue.
final class Copy {
  enum Place {
    case ready, locked, gone
  }

  /// What the broker must say of a delivery.
  enum Redelivered {
    case no, yes, either
  }

  let message: Message
  unowned let queue: QueueModel
  /// Its place in the queue's order.
  let order: Int
  /// In the log: it survives if that does.
  let isDurable: Bool
  var place = Place.ready
  var stored: Durability
  /// When it left the queue.
  var removed: Durability?
  /// After a crash it may be there or not.
  var isUncertain = false
  var redelivered = Redelivered.no
  /// The commits that have stored and removed it, if that was in transactions.
  let storedBy: CommitModel?
  var removedBy: CommitModel?
  /// While it is uncertain: what it says of a commit.
  var doubt: CommitDoubt?
  /// How often it came back: exactly, but for what a crash may have cut off.
  var comebacks: ClosedRange<Int64> = 0...0
  /// A client has got it.
  var isSeen = false
  /// A client has got it when the log could not be told any more.
  var isSeenUnsaid = false

  init(
    _ message: Message, in queue: QueueModel, order: Int, isDurable: Bool, position: Int,
    by commit: CommitModel?
  ) {
    storedBy = commit
    self.message = message
    self.queue = queue
    self.order = order
    self.isDurable = isDurable
    stored = Durability(position: position)
  }

  /// A client got it; `isSaid`: the log could be told before.
  func seen(isSaid: Bool) {
    if isSaid { isSeen = true } else { isSeenUnsaid = true }
  }
}

/// A consumer as the broker should know it.
final class ConsumerModel {
  let tag: String
  let queue: QueueModel
  let isAutomatic: Bool
  /// 0 is no limit.
  let prefetch: Int
  /// Higher ones are served first.
  let priority: Int
  /// nil once that is over: the consumer may still be in its queue, cancelled and not yet explained.
  private weak var channel: ChannelModel?
  var lockedCount = 0
  /// It could take a message at the end of a turn, and whenever somebody looked since then.
  var isLongReady = false

  init(
    tag: String, queue: QueueModel, isAutomatic: Bool, priority: Int, channel: ChannelModel
  ) {
    self.tag = tag
    self.queue = queue
    self.isAutomatic = isAutomatic
    self.priority = priority
    self.channel = channel
    prefetch = channel.prefetch
  }

  /// Its client can be told that it was cancelled.
  var isTold: Bool { channel?.connection.isTold ?? false }
  /// Its client waits for an answer.
  var isWaiting: Bool { channel?.connection.isWaiting() ?? false }

  /// It can take one more message now.
  var isReady: Bool {
    guard let channel, channel.connection.hasRoom() else { return false }
    guard !isAutomatic else { return true }
    return (prefetch == 0 || lockedCount < prefetch)
      && (channel.sharedPrefetch == 0 || channel.deliveries.count < channel.sharedPrefetch)
  }

  /// What its channel may have out is shared with consumers of other queues that have messages: while
  /// such a message is read back, a delivery is kept for it.
  var mayLeaveItsTurn: Bool {
    guard let channel else { return false }
    return !isAutomatic && channel.sharedPrefetch > 0
      && channel.consumers.values.contains {
        $0.queue !== queue && !$0.isAutomatic && $0.queue.readyCount != 0
      }
  }
}

/// What must be in a queue, in its order.
final class QueueModel {
  let name: String
  let isDurable: Bool
  let countsDeliveries: Bool
  let kind: Topology.Kind
  /// The connection that an exclusive queue belongs to, while it is there.
  private(set) weak var owner: ConnectionModel?
  /// Whether it was there after each declaration and deletion, the latest last.
  private var history: [(exists: Bool, since: Durability)] = []
  /// nil when a crash leaves it open.
  private(set) var existence: Bool? = false
  /// In order; those that a crash left uncertain among them.
  private(set) var ready: [Copy] = []
  /// All that are in the queue, locked or ready, by their message.
  private var copies: [Int: Copy] = [:]
  /// Removed, and perhaps not for good if a crash comes.
  private var leaving: [Copy] = []
  /// How many of the uncertain are there; nil until the broker has told a count.
  private var uncertainCount: Int? = 0
  private var nextOrder = 0
  /// The last that was ever delivered.
  private var deliveredOrder = -1
  private(set) var consumers: [ConsumerModel] = []
  /// Since it was declared, or since the last start.
  private var hadConsumers = false

  init(name: String, in topology: Topology) {
    self.name = name
    isDurable = topology.isDurable(name)
    countsDeliveries = topology.countsDeliveries(name)
    kind = topology.kind(name)
  }

  // MARK: Consumers

  func add(_ consumer: ConsumerModel) {
    consumers.append(consumer)
    hadConsumers = true
  }

  func remove(_ consumer: ConsumerModel) {
    consumers.removeAll { $0 === consumer }
  }

  /// It goes, because its last consumer went.
  var isLeft: Bool { goesWithConsumers && consumers.isEmpty }
  /// It goes when its last consumer goes.
  var goesWithConsumers: Bool { kind == .autoDelete && exists && hadConsumers }

  var exists: Bool { existence == true }
  var isObserved: Bool { uncertainCount != nil }
  var uncertain: Int { ready.count { $0.isUncertain } }
  /// All that are in it, ready or locked.
  var alive: [Copy] { Array(copies.values) }
  /// How many those are.
  var waitingCount: Int { copies.count }

  /// What must still come.
  var firstCertain: Copy? {
    copies.values.filter { !$0.isUncertain }.min { $0.order < $1.order }
  }

  /// How many messages the broker must say are ready; nil if that is not known.
  var readyCount: Int? {
    uncertainCount.map { ready.count - uncertain + $0 }
  }

  // MARK: Existence

  func declared(at position: Int, by connection: ConnectionModel) {
    guard existence != true else { return }
    existence = true
    owner = kind == .exclusive ? connection : nil
    if isDurable { history.append((true, Durability(position: position))) }
  }

  /// Returns what was in it.
  func deleted(at position: Int) {
    guard exists else { return }
    existence = false
    forgetConsumers()
    if isDurable { history.append((false, Durability(position: position))) }
    for copy in copies.values.sorted(by: { $0.order < $1.order }) {
      remove(copy, at: position)
    }
    // What left it before goes with it, whether the log was told of that or not.
    for copy in leaving where copy.removed.map({ $0.position > position }) ?? false {
      copy.removed?.position = position
    }
    uncertainCount = 0
  }

  private func forgetConsumers() {
    consumers = []
    hadConsumers = false
    owner = nil
  }

  /// What a reply to the latest declaration or deletion promises: that it is durable, and all before.
  func laterPromise() -> () -> Void {
    let count = history.count
    let position = history.last?.since.position ?? 0
    return { [unowned self] in
      for index in 0..<min(count, history.count) { history[index].since.isPromised = true }
      for copy in leaving where copy.removed.map({ $0.position <= position }) ?? false {
        copy.removed?.isPromised = true
      }
    }
  }

  func isSettled(_ bound: DurableBound) -> Bool {
    history.allSatisfy { $0.since.isSure(bound) }
  }

  /// The broker was asked after a crash whether the queue is there.
  func observed(exists: Bool) throws(BrokenPromise) {
    if let known = existence, known != exists {
      throw BrokenPromise(
        exists ? "a deleted queue does not come back" : "a durable queue is not lost", name)
    }
    existence = exists
    history = [(exists, Durability(position: 0, isPromised: true))]
    guard !exists else { return }
    if let lost = ready.first(where: { !$0.isUncertain }) {
      throw BrokenPromise(
        "no confirmed durable message is lost", "m\(lost.message.id) with queue \(name)")
    }
    for copy in ready { forget(copy) }
    ready = []
    uncertainCount = 0
  }

  // MARK: Messages

  @discardableResult
  func publish(_ message: Message, at position: Int, by commit: CommitModel? = nil) -> Copy {
    let copy = Copy(
      message, in: self, order: nextOrder, isDurable: isDurable && message.isPersistent,
      position: position, by: commit)
    nextOrder += 1
    ready.append(copy)
    copies[message.id] = copy
    return copy
  }

  func copy(of message: Message) -> Copy? { copies[message.id] }

  /// A copy that is ready is taken by a client. Throws if another one is before it.
  func take(_ copy: Copy) throws(BrokenPromise) {
    while let first = ready.first, first !== copy {
      guard first.isUncertain else {
        throw BrokenPromise(
          "messages leave a queue in its order",
          "\(name) gave m\(copy.message.id) before m\(first.message.id)")
      }
      try first.doubt?.seen(first, isThere: false)
      forget(first)
      ready.removeFirst()
    }
    ready.removeFirst()
    if copy.isUncertain {
      try copy.doubt?.seen(copy, isThere: true)
      copy.isUncertain = false
      // What a recovery found is durable.
      copy.stored = Durability(position: 0, isPromised: true)
      if let count = uncertainCount {
        uncertainCount = count - 1
        try promise(
          count > 0, "counts are right", "\(name) gave m\(copy.message.id), which it did not count")
      }
    }
    deliveredOrder = max(deliveredOrder, copy.order)
    try resolveUncertain()
  }

  func lock(_ copy: Copy) { copy.place = .locked }

  /// A locked copy comes back.
  func giveBack(_ copy: Copy) {
    guard copy.place == .locked else { return }
    copy.place = .ready
    copy.redelivered = .yes
    copy.comebacks = copy.comebacks.lowerBound + 1...copy.comebacks.upperBound + 1
    var low = 0
    var high = ready.count
    while low < high {
      let middle = (low + high) / 2
      if ready[middle].order < copy.order { low = middle + 1 } else { high = middle }
    }
    ready.insert(copy, at: low)
  }

  /// A copy that was taken, or is purged, left the queue; `position` is where the log says so.
  func remove(_ copy: Copy, at position: Int) {
    guard copy.place != .gone else { return }
    if copy.place == .ready { ready.removeAll { $0 === copy } }
    copy.place = .gone
    copies[copy.message.id] = nil
    guard copy.isDurable else { return }
    copy.removed = Durability(position: position)
    copy.removedBy = nil
    leaving.append(copy)
  }

  /// Removes all that are ready; returns which, and how many, if that is known.
  func purge(at position: Int) -> (count: Int?, copies: [Copy]) {
    let count = readyCount
    let copies = ready
    for copy in copies { remove(copy, at: position) }
    uncertainCount = 0
    return (count, copies)
  }

  /// It is not there, and must never be again.
  private func forget(_ copy: Copy) {
    copy.place = .gone
    copies[copy.message.id] = nil
  }

  /// For whoever looks for the cause of a failure.
  var contents: String {
    ready.map { "m\($0.message.id)" + ($0.isUncertain ? "?" : "") }.joined(separator: " ")
  }

  /// The broker told how many messages are ready.
  func observe(count: Int) throws(BrokenPromise) {
    if let expected = readyCount {
      return try promise(
        count == expected, "counts are right",
        "\(name) has \(count) messages, not \(expected): \(contents)")
    }
    let certain = ready.count - uncertain
    try promise(
      count >= certain, "no confirmed durable message is lost",
      "\(name) has \(count) messages, and \(certain) at least should have survived")
    try promise(
      count <= ready.count, "no acknowledged message comes back",
      "\(name) has \(count) messages, and \(ready.count) at most could have survived")
    uncertainCount = count - certain
    try resolveUncertain()
  }

  private func resolveUncertain() throws(BrokenPromise) {
    guard let count = uncertainCount else { return }
    let uncertain = uncertain
    guard uncertain > 0 || count > 0 else { return }
    try promise(
      count <= uncertain, "no message is lost that was there",
      "\(name) counted \(count) more than can still come")
    if count == uncertain {
      for copy in ready where copy.isUncertain {
        try copy.doubt?.seen(copy, isThere: true)
        copy.isUncertain = false
        copy.stored = Durability(position: 0, isPromised: true)
      }
      uncertainCount = 0
    } else if count == 0 {
      for copy in ready where copy.isUncertain {
        try copy.doubt?.seen(copy, isThere: false)
        forget(copy)
      }
      ready.removeAll { $0.place == .gone }
    }
  }

  // MARK: Crashes

  /// What left the queue within the bound is gone for good.
  func settle(_ bound: DurableBound) {
    leaving.removeAll { $0.removed?.isSure(bound) ?? true }
  }

  /// The broker is gone: what is within the bound is there when it comes again, what is not may be.
  /// `isOrderly`: it had time to write everything.
  func crash(_ bound: DurableBound, isOrderly: Bool) {
    forgetConsumers()
    settle(bound)
    let candidates = Array(copies.values) + leaving
    copies = [:]
    leaving = []
    ready = []
    guard isDurable else {
      existence = false
      for copy in candidates { copy.place = .gone }
      return
    }
    decideExistence(bound)
    for copy in candidates.sorted(by: { $0.order < $1.order }) {
      guard copy.isDurable else {
        copy.place = .gone
        continue
      }
      copy.doubt = doubt(of: copy, bound)
      let isSure = !copy.isUncertain && copy.removed == nil && copy.stored.isSure(bound)
      copy.isUncertain = !isSure
      if isSure { copy.stored = Durability(position: 0, isPromised: true) }
      copy.removed = nil
      // What was out may have come back at the end, and counts that were not written are forgotten.
      let upper = copy.comebacks.upperBound + (copy.place == .ready ? 0 : 1)
      copy.comebacks = (isOrderly ? copy.comebacks.lowerBound : 0)...upper
      copy.place = .ready
      if !bound.keepsPromises, copy.isSeen {
        copy.isSeen = false
        copy.isSeenUnsaid = true
      }
      let isFresh =
        isOrderly && !copy.isSeen && !copy.isSeenUnsaid && copy.order > deliveredOrder
        && copy.redelivered == .no
      copy.redelivered = copy.isSeen ? .yes : isFresh ? .no : .either
      ready.append(copy)
      copies[copy.message.id] = copy
    }
    uncertainCount = uncertain == 0 && existence != nil ? 0 : nil
  }

  /// All that is there comes again marked as redelivered.
  func takeForDelivered() {
    for copy in copies.values { copy.redelivered = .yes }
  }

  /// What seeing the copy, or missing it, will say of a commit: where nothing else can be the cause.
  private func doubt(of copy: Copy, _ bound: DurableBound) -> CommitDoubt? {
    if copy.isUncertain { return copy.removed == nil ? copy.doubt : nil }
    guard copy.removed != nil else {
      return copy.stored.isSure(bound) ? nil : copy.storedBy.map { .stored($0) }
    }
    return copy.stored.isSure(bound) ? copy.removedBy.map { .removed($0) } : nil
  }

  private func decideExistence(_ bound: DurableBound) {
    guard existence != nil else { return }
    let sure = history.lastIndex { $0.since.isSure(bound) }
    let state = sure.map { history[$0].exists } ?? false
    let isOpen = (sure ?? -1) + 1 < history.count
    history = [(state, Durability(position: 0, isPromised: true))]
    existence = isOpen ? nil : state
  }
}
