import AMQP
import Base

/// Publishes messages that do not live for ever, into a queue whose dead letters go to another one: nothing
/// expires early, nothing is delivered when its time is over, and each is in one of the two queues.
final class ExpiryGuest: Guest {
  override class var name: String { "expiry" }

  private let queue: Name = "mortal"
  private let grave: Name = "grave"
  private static let backlogMax = 60
  /// Messages leave wherever they stand, and not only when they are the next ones.
  static let leavesFromTheMiddle = true

  /// A message is there for so many milliseconds at most when its time is over and nothing else happens.
  private static let lateMax: Int64 = 100

  private lazy var life: Int64? = random.choose([nil, nil, 0, 50, 1000, 10_000, 100_000])

  override func arrive() throws(BrokenPromise) {
    let (certain, possible) = ledger.counts()
    let count = readyCount(queue) + readyCount(grave)
    try promise(
      count >= certain && count <= possible, "a dead letter is in exactly one place",
      "\(count) messages after a start, and \(certain) to \(possible) must be there")
    ledger.resolve(count)
    var arguments: FieldTable = [
      "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string(grave.bytes),
    ]
    if let life { arguments.entries.append(.init(name: "x-message-ttl", value: .int64(life))) }
    try declare(grave)
    try declare(queue, arguments)
    if isFinishing || random.oneIn(3) {
      try consume(queue, tag: "living", prefetch: random.choose([1, 3, 50]))
    }
    if isFinishing || !random.oneIn(3) {
      try consume(grave, tag: "dead", prefetch: random.choose([1, 3, 50]))
    }
  }

  override func act() throws(BrokenPromise) {
    let (_, possible) = ledger.counts()
    let count = readyCount(queue) + readyCount(grave)
    try promise(
      count <= possible, "a dead letter is in exactly one place",
      "\(count) messages, and \(possible) at most can be there")
    for parcel in ledger.all where parcel.isHeld && (isFinishing || random.oneIn(4)) {
      try answer(parcel)
    }
    guard !isFinishing, ledger.count < Self.backlogMax else { return }
    for _ in 0..<random.number(0...2) where random.flag() { try publish() }
  }

  private func answer(_ parcel: Parcel) throws(BrokenPromise) {
    switch isFinishing ? 9 : random.number(0...9) {
    case 0...1: try giveBack(parcel)
    case 2...4 where !parcel.fate.isDead:
      parcel.fate.rejectedIn = lifeNumber
      try discard(parcel)
    default: try acknowledge(parcel)
    }
  }

  private func publish() throws(BrokenPromise) {
    let own: Int64? = random.choose([nil, nil, 0, 20, 300, 300, 5000, 60_000, 3_600_000])
    var properties = BasicProperties()
    properties.expiration = own.map { Name(String($0)) }
    try publish(to: "", key: queue, properties) {
      guard let shortest = [own, life].compactMap(\.self).min() else { return }
      $0.fate.due = now + shortest
      $0.fate.isByQueue = own == nil
    }
  }

  override func hasHad(_ parcel: Parcel, from consumer: String) -> Bool {
    consumer == "dead" ? parcel.fate.deadSeenIn == lifeNumber : parcel.seenIn == lifeNumber
  }

  override func heard(_ arrival: Arrival, of parcel: Parcel) throws(BrokenPromise) {
    if arrival.consumer == "dead" { return try heardDead(arrival, parcel) }
    try promise(
      !parcel.fate.isDead && (parcel.fate.rejectedIn != lifeNumber || !isSound),
      "a dead letter is in exactly one place", "p\(parcel.id) is in its old queue, too")
    // Without any life it may be taken at once, if somebody can.
    let isAtOnce = parcel.fate.due == parcel.date && parcel.lifeNumber == lifeNumber
    try promise(
      arrival.date < parcel.fate.due || isAtOnce, "nothing is delivered when its time is over",
      "p\(parcel.id), whose time ended at \(parcel.fate.due), came at \(arrival.date)")
  }

  private func heardDead(_ arrival: Arrival, _ parcel: Parcel) throws(BrokenPromise) {
    guard case .array(let deaths)? = arrival.properties.headers?["x-death"],
      case .table(let death)? = deaths.first, deaths.count == 1,
      death["queue"] == .string(queue.bytes), death["count"] == .int64(1),
      case .timestamp(let seconds)? = death["time"]
    else { throw BrokenPromise("a dead letter says how it died", "p\(parcel.id)") }
    try promise(
      arrival.properties.expiration == nil, "a dead letter lives for ever", "p\(parcel.id)")
    switch death["reason"]?.text {
    case "expired":
      try promise(
        hasCome(parcel.fate.due, for: parcel)
          && Int64(seconds) * 1000 + 999 >= parcel.fate.due,
        "nothing expires early", "p\(parcel.id), whose time ends at \(parcel.fate.due)")
    case "rejected":
      try promise(
        parcel.fate.rejectedIn > 0, "only what is rejected is a rejected letter", "p\(parcel.id)")
    default: throw BrokenPromise("a dead letter says how it died", "p\(parcel.id)")
    }
    world.coverage.note(.expiredLetters)
    ledger.wasSeenDead(parcel, before: world.oracle.endPosition, in: lifeNumber)
  }

  override func rested() throws(BrokenPromise) {
    let count = readyCount(queue)
    let kept = keptByOthers()
    let (_, living) = ledger.counts { !$0.fate.isDead && (isAlive($0) || kept.contains($0.id)) }
    let total = count + readyCount(grave)
    let (certain, _) = ledger.counts()
    try promise(
      total >= certain, "a dead letter is in exactly one place",
      "\(total) messages, and \(certain) must be there")
    guard Self.leavesFromTheMiddle || living == 0 else { return }
    try promise(
      count <= living, "what has expired leaves",
      "\(count) are there at \(now), and \(living) live: \(contents)")
  }

  private func isAlive(_ parcel: Parcel) -> Bool {
    parcel.fate.due == .max || !hasPassed(parcel.fate.due + Self.lateMax, for: parcel)
  }

  /// What expires by the queue's time alone may stay as long as one in front of it lives, which lives for longer
  /// only since the clock was set back.
  private func keptByOthers() -> Set<Int> {
    var kept: Set<Int> = []
    var hasLiving = false
    for parcel in ledger.all where parcel.isWaiting && !parcel.fate.isDead {
      if isAlive(parcel) {
        hasLiving = true
      } else if hasLiving, parcel.fate.isByQueue {
        kept.insert(parcel.id)
      }
    }
    return kept
  }

  /// For whoever looks for the cause of a failure.
  private var contents: String {
    ledger.all.filter { $0.isWaiting && !$0.fate.isDead }
      .map { "p\($0.id)" + ($0.isUncertain ? "?" : "") + " \($0.fate.due - now)" }
      .joined(separator: ", ")
  }

  override var latestDue: Int64 {
    ledger.all.reduce(0) { max($0, $1.fate.due == .max ? 0 : $1.fate.due) }
  }
}
