/// A message of a guest, and what is known of where it is.
final class Parcel {
  enum Place {
    /// With the broker, whichever of the guest's queues it is in.
    case waiting
    /// With the guest, which has not answered its delivery.
    case held(tag: UInt64)
    /// The guest has acknowledged it, or it left its queue for good.
    case gone
  }

  let id: Int
  /// Bytes of its body.
  let size: Int
  let isPersistent: Bool
  /// The number of the broker's life in which it was published, and the date.
  let lifeNumber: Int
  let date: Int64
  fileprivate(set) var place = Place.waiting
  fileprivate(set) var stored = Durability(position: .max)
  fileprivate var removed: Durability?
  /// After a crash it may be there or not.
  fileprivate(set) var isUncertain = false
  var isSeen: Bool { seenIn > 0 }
  /// The number of the life in which the guest had it last; 0 if it had not. A crash may take back that it went
  /// where it was seen.
  fileprivate(set) var seenIn = 0
  /// What its guest knows besides.
  var fate = Fate()

  struct Fate {
    /// A date from which on, or until which, something holds, as its guest means it.
    var due = Int64.max
    /// Nothing but its queue's time says when it expires.
    var isByQueue = false
    var delay: Int64 = 0
    var priority = 0
    /// What happened to it so far when it came to where it is.
    var tick = 0
    /// It is a dead letter for sure, and what is known of whether that survives.
    var death: Durability?
    /// The life in which it was rejected last, or left its queue for want of room; 0 for never.
    var rejectedIn = 0
    var droppedIn = 0
    /// The life in which it came as a dead letter.
    var deadSeenIn = 0
    /// When the guest got it, in monotonic milliseconds of that life.
    var since: Int64 = 0
    /// What it is known by.
    var value = 0
    var isRefused = false

    var isDead: Bool { death != nil }
  }

  init(id: Int, size: Int, isPersistent: Bool, lifeNumber: Int, date: Int64) {
    self.id = id
    self.size = size
    self.isPersistent = isPersistent
    self.lifeNumber = lifeNumber
    self.date = date
  }

  var isWaiting: Bool { if case .waiting = place { true } else { false } }
  var isHeld: Bool { if case .held = place { true } else { false } }
  var isGone: Bool { if case .gone = place { true } else { false } }
  var isPromised: Bool { stored.isPromised }
  func isSure(_ bound: DurableBound) -> Bool { stored.isSure(bound) }
  /// It is with the broker for sure.
  var isCertain: Bool { isWaiting && !isUncertain }

  var body: [UInt8] {
    withUnsafeBytes(of: UInt64(id)) { Array($0) }
      + [UInt8](repeating: UInt8(truncatingIfNeeded: id), count: size - Self.sizeMin)
  }

  static let sizeMin = 8
}

/// All parcels of a guest that are not gone for good.
struct Ledger {
  /// By their ids, which count up.
  private var parcels: [Int: Parcel] = [:]
  private var lastID = 0
  /// Removals that the log was not told yet.
  private var unlogged: [Parcel] = []

  var count: Int { parcels.count }

  subscript(id: Int) -> Parcel? { parcels[id] }

  /// In the order in which they were published.
  var all: [Parcel] { parcels.values.sorted { $0.id < $1.id } }

  /// What the broker has for sure, and what it may have besides; `body` chooses.
  func counts(of body: (Parcel) -> Bool = { _ in true }) -> (certain: Int, possible: Int) {
    var counts = (certain: 0, possible: 0)
    for parcel in parcels.values where parcel.isWaiting && body(parcel) {
      counts.possible += 1
      if !parcel.isUncertain { counts.certain += 1 }
    }
    return counts
  }

  mutating func make(_ make: (Int) -> Parcel) -> Parcel {
    lastID += 1
    let parcel = make(lastID)
    parcels[lastID] = parcel
    return parcel
  }

  /// It was never stored.
  mutating func forget(_ parcel: Parcel) {
    parcel.place = .gone
    parcels[parcel.id] = nil
  }

  func wasStored(_ parcel: Parcel, before position: Int) {
    parcel.stored.position = position
  }

  /// It may be gone.
  func wasDoubted(_ parcel: Parcel) {
    parcel.place = .waiting
    parcel.isUncertain = true
  }

  func wasPromised(_ parcel: Parcel) { parcel.stored.isPromised = true }

  /// The guest got it: it is there.
  func wasDelivered(_ parcel: Parcel, _ tag: UInt64, in lifeNumber: Int) {
    parcel.place = .held(tag: tag)
    parcel.seenIn = lifeNumber
    wasFound(parcel)
  }

  /// It is there, as something says that a crash left open.
  func wasFound(_ parcel: Parcel) {
    parcel.isUncertain = false
  }

  /// It came as a dead letter.
  func wasSeenDead(_ parcel: Parcel, before position: Int, in lifeNumber: Int) {
    parcel.fate.deadSeenIn = lifeNumber
    if parcel.fate.death == nil { parcel.fate.death = Durability(position: position) }
  }

  func wasGivenBack(_ parcel: Parcel) { parcel.place = .waiting }

  /// It has left for good, when the log has heard of that.
  mutating func wasRemoved(_ parcel: Parcel) {
    parcel.place = .gone
    guard parcel.isPersistent else {
      parcels[parcel.id] = nil
      return
    }
    parcel.removed = Durability(position: .max)
    unlogged.append(parcel)
  }

  /// Its acknowledgement may have been ignored: it is not known whether it has left.
  mutating func wasRevived(_ parcel: Parcel) {
    unlogged.removeAll { $0 === parcel }
    parcel.removed = nil
    parcel.isUncertain = true
    parcel.place = .waiting
    parcels[parcel.id] = parcel
  }

  /// The log knows what has left.
  mutating func logged(before position: Int) {
    for parcel in unlogged where parcel.removed?.position == .max {
      parcel.removed?.position = position
    }
    unlogged.removeAll(keepingCapacity: true)
  }

  /// The broker is gone.
  mutating func crash(_ bound: DurableBound) {
    unlogged = []
    for parcel in all {
      guard parcel.isPersistent, parcel.removed?.isSure(bound) != true else {
        parcel.place = .gone
        parcels[parcel.id] = nil
        continue
      }
      if parcel.removed != nil || !parcel.stored.isSure(bound) { parcel.isUncertain = true }
      // If it is there at all, the start has made it durable.
      parcel.stored = Durability(position: 0, isPromised: true)
      parcel.removed = nil
      parcel.place = .waiting
      if let death = parcel.fate.death {
        let isSure = death.isSure(bound)
        if !isSure, parcel.fate.droppedIn == 0 { parcel.fate.droppedIn = -1 }
        parcel.fate.death = isSure ? Durability(position: 0, isPromised: true) : nil
      }
    }
  }

  /// The broker has so many in all: that may say of each whether it is there.
  mutating func resolve(_ count: Int) {
    let (certain, possible) = counts()
    guard certain < possible, count == certain || count == possible else { return }
    for parcel in all where parcel.isUncertain && parcel.isWaiting {
      if count == possible { wasFound(parcel) } else { forget(parcel) }
    }
  }
}
