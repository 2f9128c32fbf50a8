import AMQP
import Arbitrary
import Base
import Broker
import Journal

/// A program of its own beside the clients of a run: it uses queues and exchanges with settings, which nobody
/// else does, and knows what must come of that. It lasts over all lives of the broker, and talks to it by
/// its calls, between turns.
class Guest {
  unowned let world: World
  var random: SeededGenerator
  var ledger = Ledger()
  /// nil while it has no broker.
  private(set) var visit: GuestVisit?
  private(set) var lifeNumber = 0
  /// The last date of each life that is over.
  private var dates: [Int64] = []
  /// Nothing new is to come, and everything to leave.
  var isFinishing = false
  /// What the broker's calls have come to, since they cannot throw it.
  private var broken: BrokenPromise?

  required init(_ world: World, _ random: SeededGenerator) {
    self.world = world
    self.random = random
  }

  /// As on the command line.
  class var name: String { invariantFailed("a guest has no name") }
  final var name: String { Self.name }

  // MARK: What each does

  /// Has all be there that it uses. What a crash has left is there already.
  func arrive() throws(BrokenPromise) {}
  func act() throws(BrokenPromise) {}
  /// It looks at what comes itself: that is none of the parcels that are known to be somewhere.
  func isOwn(_ arrival: Arrival) -> Bool { false }
  func heard(_ arrival: Arrival, of parcel: Parcel) throws(BrokenPromise) {}
  /// The broker did not take a message, though its log works.
  func refused(_ parcel: Parcel) throws(BrokenPromise) {
    throw BrokenPromise(
      "a publish is refused only when the journal failed", "\(name) p\(parcel.id)")
  }
  /// It deletes the consumer's queue.
  func mayEnd(_ consumer: String) -> Bool { false }
  func consumerTimedOut(_ tag: String) throws(BrokenPromise) {
    throw BrokenPromise("only what has a time comes to its end", "\(tag) of \(name)")
  }
  /// What the guest has is its own no more.
  func isUnlocked(_ parcel: Parcel, at time: Int64) -> Bool { false }
  /// In this life it was delivered from where it comes from.
  func hasHad(_ parcel: Parcel, from consumer: String) -> Bool { parcel.seenIn == lifeNumber }
  /// The life ends; what the broker has in memory can still be seen.
  func ending() {}
  func crashed(_ bound: DurableBound) {}
  /// Nothing happens until time passes, or somebody does something.
  func rested() throws(BrokenPromise) {}
  /// Small messages that the broker may have of it besides its parcels.
  var besides: Int { 0 }
  /// The date from which on everything that waits has become due.
  var latestDue: Int64 { 0 }

  // MARK: Lives

  final func begin(_ life: Life) throws(BrokenPromise) {
    lifeNumber += 1
    guard let visit = GuestVisit(self, in: life) else { return }
    self.visit = visit
    invariant(dates.count == lifeNumber - 1, "a guest has missed the end of a life")
    try arrive()
  }

  final func leave() {
    if visit != nil { ending() }
    visit?.end()
    visit = nil
  }

  /// The life has ended; it went on for a moment without its guests if it ended in order.
  final func ended(at date: Int64) {
    if dates.count < lifeNumber { dates.append(date) }
  }

  final func logged(before position: Int) { ledger.logged(before: position) }

  final func crash(_ bound: DurableBound) {
    if visit != nil { ending() }
    ledger.crash(bound)
    crashed(bound)
  }

  /// It may ask for something now.
  final var isServed: Bool { visit?.isServed ?? false }

  final var isHeldBack: Bool { visit?.isHeldBack ?? false }
  final func makeRoom() { visit?.makeRoom() }

  final func check() throws(BrokenPromise) {
    if let broken { throw broken }
  }

  // MARK: Asking

  var broker: Broker {
    guard let visit else { invariantFailed("a guest has no broker") }
    return visit.life.broker
  }
  var now: Int64 { broker.now }
  /// Monotonic milliseconds of this life.
  var time: Int64 { broker.time }
  final var isTroubled: Bool { world.oracle.isRotten }
  /// All that is on the disk can be read, and could be in this life.
  final var isSound: Bool { visit?.life.isSound ?? false }

  /// A date has come since a parcel was published: in this life, or in one before, as the clock may have been
  /// set back since.
  final func hasCome(_ date: Int64, for parcel: Parcel) -> Bool {
    now >= date || dates.dropFirst(parcel.lifeNumber - 1).contains { $0 >= date }
  }

  /// A date has come for a parcel, and whoever waited for it has been told. While dates follow a wall clock that was
  /// set ahead, by a hundredth of the time that passes, they come that much sooner than was known when the wait began:
  /// what was to last a minute lasts a minute, and its end is a date that is 0.6 seconds ago.
  final func hasPassed(_ date: Int64, for parcel: Parcel) -> Bool {
    let waited = parcel.lifeNumber == lifeNumber ? now - parcel.date : time
    return now - waited / SteadyClock.share - Self.roundingMilliseconds >= date
  }
  private static let roundingMilliseconds: Int64 = 2

  /// Asks for something that the broker must not refuse while its log works. False when it did.
  @discardableResult
  final func ask(
    _ body: (GuestVisit) throws(BrokerError) -> Void
  ) throws(BrokenPromise) -> Bool {
    guard let visit, visit.isServed else { return false }
    do throws(BrokerError) {
      try body(visit)
      return true
    } catch {
      try promise(
        visit.life.journal.failure != nil, "what is right is not refused", "\(name): \(error)")
      visit.isOver = true
      return false
    }
  }

  final func declare(_ queue: Name, _ arguments: FieldTable = [:]) throws(BrokenPromise) {
    try ask { (visit) throws(BrokerError) in
      var wanted = QueueDeclaration(name: queue)
      wanted.isDurable = true
      wanted.arguments = arguments
      _ = try visit.peer.vhost.declareQueue(wanted, on: visit.channel)
    }
  }

  final func declare(
    exchange: Name, _ type: Name, _ arguments: FieldTable = [:]
  ) throws(BrokenPromise) {
    try ask { (visit) throws(BrokerError) in
      var wanted = ExchangeDeclaration(name: exchange, type: type)
      wanted.isDurable = true
      wanted.arguments = arguments
      _ = try visit.peer.vhost.declareExchange(wanted, by: visit.peer)
    }
  }

  final func bind(
    _ queue: Name, to exchange: Name, key: Name = "", _ arguments: FieldTable = [:]
  ) throws(BrokenPromise) {
    try ask { (visit) throws(BrokerError) in
      _ = try visit.peer.vhost.bindQueue(
        queue, to: exchange, key: key, arguments: arguments, on: visit.channel)
    }
  }

  final func consume(
    _ queue: Name, tag: String, prefetch: Int, _ arguments: FieldTable = [:]
  ) throws(BrokenPromise) {
    try ask { (visit) throws(BrokerError) in
      visit.channel.setPrefetch(prefetch, isGlobal: false)
      _ = try visit.channel.consume(
        queue, tag: Name(tag), isAutomatic: false, isExclusive: false, arguments: arguments)
    }
  }

  final func cancel(_ tag: Name) throws(BrokenPromise) {
    try ask { (visit) throws(BrokerError) in visit.channel.cancel(tag) }
  }

  /// How many messages are ready in a queue; 0 if it is not there.
  final func readyCount(_ queue: Name) -> Int {
    guard let visit, visit.peer.vhost.hasQueue(queue) else { return 0 }
    var wanted = QueueDeclaration(name: queue)
    wanted.isPassive = true
    do throws(BrokerError) {
      return try visit.peer.vhost.declareQueue(wanted, on: visit.channel).0.readyCount
    } catch {
      return 0
    }
  }

  /// Publishes a new message. `prepare` says of it what its guest has to know when it comes. Nil if the
  /// broker's log has failed.
  @discardableResult
  final func publish(
    to exchange: Name, key: Name, _ properties: BasicProperties = .init(), size: Int? = nil,
    isPersistent: Bool? = nil, _ prepare: (Parcel) -> Void = { _ in }
  ) throws(BrokenPromise) -> Parcel? {
    guard let visit, visit.isServed else { return nil }
    let isPersistent = isPersistent ?? !random.oneIn(8)
    let size = size ?? random.choose([8, 8, 30, 100, 700, 3000])
    let parcel = ledger.make {
      Parcel(
        id: $0, size: size, isPersistent: isPersistent, lifeNumber: lifeNumber, date: now)
    }
    prepare(parcel)
    trace("publishes p\(parcel.id) at \(now)")
    var properties = properties
    if isPersistent { properties.deliveryMode = 2 }
    let isStored = try ask { (visit) throws(BrokerError) in
      try visit.publish(parcel, to: exchange, key: key, properties)
    }
    guard isStored else {
      ledger.forget(parcel)
      return nil
    }
    ledger.wasStored(parcel, before: visit.life.journal.endPosition)
    world.coverage.note(.guestPublishes)
    return parcel
  }

  final func acknowledge(_ parcel: Parcel) throws(BrokenPromise) {
    guard case .held(let tag) = parcel.place else { return }
    let isDone = try ask { (visit) throws(BrokerError) in
      try visit.channel.acknowledge(tag, isMultiple: false)
    }
    guard isDone else { return }
    trace("acknowledges p\(parcel.id)")
    ledger.wasRemoved(parcel)
  }

  /// The parcel goes back to its queue.
  final func giveBack(_ parcel: Parcel) throws(BrokenPromise) {
    guard case .held(let tag) = parcel.place else { return }
    trace("gives p\(parcel.id) back")
    ledger.wasGivenBack(parcel)
    try ask { (visit) throws(BrokerError) in
      try visit.channel.reject(tag, isMultiple: false, requeues: true)
    }
  }

  /// Nobody is to have it from its queue.
  final func discard(_ parcel: Parcel) throws(BrokenPromise) {
    guard case .held(let tag) = parcel.place else { return }
    trace("rejects p\(parcel.id)")
    ledger.wasGivenBack(parcel)
    try ask { (visit) throws(BrokerError) in
      try visit.channel.reject(tag, isMultiple: false, requeues: false)
    }
  }

  final func trace(_ text: @autoclosure () -> String) {
    world.trace.note("    guest \(name) \(text())")
  }

  // MARK: Hearing

  final func hear(_ arrival: Arrival) {
    note { () throws(BrokenPromise) in
      try promise(
        arrival.id > 0, "nothing comes that was not published", "\(name) got \(arrival.id)")
      if isOwn(arrival) { return }
      trace("hears p\(arrival.id) from \(arrival.consumer) at \(arrival.date)")
      guard let parcel = ledger[arrival.id], !parcel.isGone else {
        throw BrokenPromise("no acknowledged message comes back", "p\(arrival.id) of \(name)")
      }
      try promise(
        !parcel.isHeld || isUnlocked(parcel, at: arrival.time),
        "a locked message is not delivered again", "p\(arrival.id) of \(name)")
      try promise(
        parcel.body == arrival.body, "messages come as they were published",
        "p\(parcel.id) of \(name)")
      try promise(
        !hasHad(parcel, from: arrival.consumer) || arrival.isRedelivered,
        "redelivered is truthful", "p\(parcel.id) of \(name)")
      try heard(arrival, of: parcel)
      ledger.wasDelivered(parcel, arrival.tag, in: lifeNumber)
      world.coverage.note(.guestDeliveries)
    }
  }

  final func hearConfirm(of parcels: [Parcel]) {
    for parcel in parcels { ledger.wasPromised(parcel) }
  }

  final func hearRefusal(of parcels: [Parcel]) {
    guard visit?.life.journal.failure == nil else { return }
    note { () throws(BrokenPromise) in for parcel in parcels { try refused(parcel) } }
  }

  /// Consumers are ended with their queue, which a guest's does not do, or for damage.
  final func hearEnd(of consumer: String) {
    note { () throws(BrokenPromise) in
      try promise(
        isTroubled || mayEnd(consumer), "consumers are cancelled with their queue",
        "\(consumer) of \(name)")
    }
  }

  final func hearTimeOut(of consumer: String) {
    note { () throws(BrokenPromise) in try consumerTimedOut(consumer) }
  }

  final func note(_ body: () throws(BrokenPromise) -> Void) {
    guard broken == nil, !world.disk.isCrashed else { return }
    do throws(BrokenPromise) {
      try body()
    } catch {
      broken = error
    }
  }
}

/// A message as a guest gets it.
struct Arrival {
  let consumer: String
  let tag: UInt64
  let isRedelivered: Bool
  /// When it came.
  let date: Int64
  /// Monotonic milliseconds of the broker then.
  let time: Int64
  let exchange: Name
  let properties: BasicProperties
  let body: [UInt8]

  /// Which parcel it is; 0 if it says none.
  var id: Int {
    guard body.count >= Parcel.sizeMin else { return 0 }
    return body.withUnsafeBytes { Int(truncatingIfNeeded: $0.loadUnaligned(as: UInt64.self)) }
  }
}
