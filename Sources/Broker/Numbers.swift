/// The numbers of queues, or of exchanges. The log names what is durable by numbers that are never used
/// again. What is not durable is in no log and has numbers of another range, which are used again when
/// nobody has them any more, but not before all others were.
struct Numbers {
  /// Those from here on belong to what is not durable.
  static let firstTransient: UInt32 = 0xF000_0000

  private(set) var nextDurable: UInt32
  private var nextTransient = firstTransient
  /// Transient numbers that somebody has.
  private var taken: Set<UInt32> = []

  init(nextDurable: UInt32) {
    self.nextDurable = nextDurable
  }

  /// nil when there is none left.
  mutating func take(isDurable: Bool) -> UInt32? {
    guard isDurable else { return takeTransient() }
    guard nextDurable < Self.firstTransient else { return nil }
    defer { nextDurable += 1 }
    return nextDurable
  }

  private mutating func takeTransient() -> UInt32? {
    guard taken.count < Int(UInt32.max - Self.firstTransient) else { return nil }
    while true {
      let number = nextTransient
      nextTransient = number == .max ? Self.firstTransient : number + 1
      if taken.insert(number).inserted { return number }
    }
  }

  /// A log has used durable numbers before this one.
  mutating func use(before number: UInt32) {
    nextDurable = max(nextDurable, number)
  }

  /// Nobody knows what had the number any more.
  mutating func giveBack(_ number: UInt32) {
    if number >= Self.firstTransient { taken.remove(number) }
  }

  /// The next transient number that is tried.
  mutating func goOn(from number: UInt32) {
    nextTransient = max(number, Self.firstTransient)
  }
}
