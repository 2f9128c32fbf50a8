import Base

/// A queue's consumers in the order of service: those of the highest priority that can take a message
/// first, and equals in turns. Whoever cannot take one when it is their turn is parked, and costs
/// nothing until what held them back has changed.
struct ConsumerRounds {
  private struct Round {
    let priority: Int64
    /// Whose turn it is, and behind it those that may be able to take a message.
    var ring = ConsumerRing()
    /// With those that are parked; never 0.
    var count = 0
  }

  /// Each priority's round, the highest first.
  private var rounds: [Round] = []
  private var parked = ConsumerRing()
  private(set) var count = 0
  /// The round of the consumer that `nextReady` gave.
  private var chosen = 0

  /// How many priorities they have.
  var priorityCount: Int { rounds.count }

  /// The consumer, when there is only one and it is not parked.
  @inline(__always) var single: Consumer? { count == 1 ? rounds[0].ring.turn : nil }

  func has(priority: Int64) -> Bool {
    let place = place(of: priority)
    return place < rounds.count && rounds[place].priority == priority
  }

  mutating func add(_ consumer: Consumer) {
    let place = place(of: consumer.priority)
    if place == rounds.count || rounds[place].priority != consumer.priority {
      rounds.insert(Round(priority: consumer.priority), at: place)
    }
    count += 1
    rounds[place].count += 1
    rounds[place].ring.append(consumer)
    consumer.place = .ring
  }

  /// False if the consumer is not here.
  mutating func remove(_ consumer: Consumer) -> Bool {
    let place = place(of: consumer.priority)
    switch consumer.place {
    case .nowhere, .standby: return false
    case .ring: rounds[place].ring.remove(consumer)
    case .parked: parked.remove(consumer)
    }
    consumer.place = .nowhere
    consumer.line?.remove(consumer)
    count -= 1
    rounds[place].count -= 1
    if rounds[place].count == 0 { rounds.remove(at: place) }
    return true
  }

  /// Any of them; nil if there is none.
  var any: Consumer? {
    parked.turn ?? rounds.lazy.compactMap(\.ring.turn).first
  }

  /// The consumer whose turn it is, until `advance`; nil while none can take a message.
  @inline(__always)
  mutating func nextReady() -> Consumer? {
    for index in rounds.indices {
      while let consumer = rounds[index].ring.turn {
        if consumer.isReady {
          chosen = index
          return consumer
        }
        park(consumer, in: index)
      }
    }
    return nil
  }

  /// The consumer that `nextReady` gave is served: it is the next one's turn.
  @inline(__always)
  mutating func advance() {
    rounds[chosen].ring.advance()
  }

  // MARK: Parking

  /// A consumer that cannot take a message waits for what it lacks.
  mutating func park(_ consumer: Consumer) {
    park(consumer, in: place(of: consumer.priority))
  }

  private mutating func park(_ consumer: Consumer, in place: Int) {
    rounds[place].ring.remove(consumer)
    parked.append(consumer)
    consumer.place = .parked
    consumer.joinLine()
  }

  /// What it lacked may be there again: it is the last one's turn.
  mutating func unpark(_ consumer: Consumer) {
    guard consumer.place == .parked else { return }
    parked.remove(consumer)
    rounds[place(of: consumer.priority)].ring.append(consumer)
    consumer.place = .ring
  }

  /// Where the round of this priority is, or would be.
  @inline(__always)
  private func place(of priority: Int64) -> Int {
    var low = 0
    var high = rounds.count
    while low < high {
      let middle = (low + high) / 2
      let isBefore =
        Sabotage.is(.servesLowestPriorityFirst)
        ? rounds[middle].priority < priority : rounds[middle].priority > priority
      if isBefore { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// Consumers that wait until the active one of their queue goes, however many: who is next is known.
struct Standby {
  private struct Round {
    let priority: Int64
    /// In the order in which they came; never empty.
    var ring = ConsumerRing()
  }

  /// Those of each priority, the highest first.
  private var rounds: [Round] = []
  private(set) var count = 0

  /// How many priorities they have.
  var priorityCount: Int { rounds.count }

  func has(priority: Int64) -> Bool {
    let place = place(of: priority)
    return place < rounds.count && rounds[place].priority == priority
  }

  mutating func add(_ consumer: Consumer) {
    let place = place(of: consumer.priority)
    if place == rounds.count || rounds[place].priority != consumer.priority {
      rounds.insert(Round(priority: consumer.priority), at: place)
    }
    rounds[place].ring.append(consumer)
    consumer.place = .standby
    count += 1
  }

  mutating func remove(_ consumer: Consumer) {
    let place = place(of: consumer.priority)
    rounds[place].ring.remove(consumer)
    if rounds[place].ring.turn == nil { rounds.remove(at: place) }
    consumer.place = .nowhere
    count -= 1
  }

  /// The first of those with the highest priority, which is to be active from now on.
  mutating func takeNext() -> Consumer? {
    guard let next = rounds.first?.ring.turn else { return nil }
    remove(next)
    return next
  }

  /// Where those of this priority are, or would be.
  private func place(of priority: Int64) -> Int {
    (0..<rounds.count).partition { rounds[$0].priority > priority }
  }
}

/// Consumers in a ring that goes through themselves, so that any of them leaves at once.
struct ConsumerRing {
  // Unsafe but sound: a consumer is taken out (`ConsumerRounds.remove`) before its channel lets it
  // go.
  unowned(unsafe) private(set) var turn: Consumer?

  /// It comes last.
  mutating func append(_ consumer: Consumer) {
    guard let turn else {
      consumer.next = consumer
      consumer.previous = consumer
      self.turn = consumer
      return
    }
    let last = turn.previous
    consumer.next = turn
    consumer.previous = last
    last?.next = consumer
    turn.previous = consumer
  }

  mutating func remove(_ consumer: Consumer) {
    let next = consumer.next
    if next === consumer {
      turn = nil
    } else {
      if turn === consumer { turn = next }
      consumer.previous?.next = next
      next?.previous = consumer.previous
    }
    consumer.next = nil
    consumer.previous = nil
  }

  @inline(__always)
  mutating func advance() {
    turn = turn?.next
  }
}

/// The consumers that wait for something that they share with others. When there is more of it all of
/// them may go on, the first one before the others; those that get nothing keep their places, and who
/// was served stands behind all others next time, so that nobody takes everything for ever.
final class ConsumerLine {
  /// What they wait for. It lives as long as one of them does.
  enum Cause {
    /// In the connection's output.
    case room(Unmanaged<Peer>)
    /// The client does not want deliveries.
    case flow(Unmanaged<Channel>)
    /// What the channel may have out.
    case credit(Unmanaged<Channel>)
  }

  /// Set by those whose line it is.
  var cause: Cause?
  // Unsafe but sound, as in `ConsumerRing`: who leaves its queue leaves its line.
  unowned(unsafe) private var first: Consumer?
  unowned(unsafe) private var last: Consumer?
  /// Whoever came last from another line: the next one's place is near it, since they come in order.
  unowned(unsafe) private var changed: Consumer?
  /// It is in the broker's list of lines that go on.
  private(set) var isMoving = false
  /// The next one to go on.
  unowned(unsafe) private var cursor: Consumer?
  /// There is more once again, since the line began to go on.
  private var beginsAgain = false

  /// What they wait for is there.
  private var isOpen: Bool {
    switch cause {
    case nil: false
    case .room(let peer): peer._withUnsafeGuaranteedRef { $0.hasRoom }
    case .flow(let channel): channel._withUnsafeGuaranteedRef { $0.isFlowing }
    case .credit(let channel): channel._withUnsafeGuaranteedRef { $0.hasCredit }
    }
  }

  /// It comes behind those that have waited for longer, in whatever line; in a long line about there.
  func add(_ consumer: Consumer) {
    var before = last
    if let last, last.waitsSince > consumer.waitsSince { before = place(of: consumer) }
    let after = before == nil ? first : before?.nextInLine
    consumer.line = self
    consumer.previousInLine = before
    consumer.nextInLine = after
    if let before { before.nextInLine = consumer } else { first = consumer }
    if let after { after.previousInLine = consumer } else { last = consumer }
    if after != nil { changed = consumer }
  }

  /// Those that a consumer looks at to find its place, in each direction.
  private static let looksMax = 64

  /// The one that it comes behind; nil if it is the first.
  private func place(of consumer: Consumer) -> Consumer? {
    var before = changed ?? last
    var looks = 0
    while looks < Self.looksMax, let next = before?.nextInLine,
      next.waitsSince < consumer.waitsSince
    {
      before = next
      looks += 1
    }
    looks = 0
    while looks < Self.looksMax, let other = before, other.waitsSince > consumer.waitsSince {
      before = other.previousInLine
      looks += 1
    }
    return before
  }

  func remove(_ consumer: Consumer) {
    let (previous, next) = (consumer.previousInLine, consumer.nextInLine)
    if cursor === consumer { cursor = next }
    if changed === consumer { changed = previous }
    if let previous { previous.nextInLine = next } else { first = next }
    if let next { next.previousInLine = previous } else { last = previous }
    consumer.previousInLine = nil
    consumer.nextInLine = nil
    consumer.line = nil
  }

  /// There may be more of what they wait for.
  @inline(__always)
  func move() {
    if first != nil { begin() }
  }

  @inline(never)
  private func begin() {
    guard let first, isOpen else { return }
    guard !isMoving else {
      beginsAgain = true
      return
    }
    isMoving = true
    cursor = first
    first.channel.broker.noteMoving(self)
  }

  /// Lets them go on, each for one of the steps. Returns the first one's queue, which is served before
  /// others.
  func goOn(_ steps: inout Int) -> Queue? {
    var head: Queue?
    if first != nil, !isOpen { cursor = nil }
    while let consumer = cursor {
      guard steps > 0 else { return head }
      steps -= 1
      cursor = consumer.nextInLine
      let queue = consumer.queue
      if !queue.hasReady { remove(consumer) } else if head == nil { head = queue }
      queue.unpark(consumer)
    }
    isMoving = beginsAgain && first != nil
    beginsAgain = false
    if isMoving { cursor = first }
    return head
  }
}
