/// Whether the messages of each publisher come out of each queue in the order in which they went
/// in, from the number at the beginning of a body: publisher (u16), sequence (u48).
struct OrderCheck {
  enum Finding {
    case expected
    /// Older than one that came before, or the same again.
    case misordered
    /// From no publisher of this run.
    case foreign
  }

  /// The sequence that comes next, by queue and publisher.
  private var next: [UInt64]
  /// How many publishers of each queue are checked, and how many there may be.
  private let publishers: Int
  private let publishersMax: Int

  private static let sequenceMask: UInt64 = 1 << 48 - 1
  /// Any sequence may come next.
  private static let unknown = UInt64.max

  /// How many numbers are kept at most; with more queues and publishers, the rest is not checked.
  private static let entriesMax = 1 << 22

  /// The first sequence of a publisher may be any, since other consumers may take from the same
  /// queues. With `publishers` nil, it is not known who has published. Where messages come in another order on
  /// purpose, only foreign ones are found.
  init(queues: Int, publishers: Int?, isOrdered: Bool = true) {
    self.publishers =
      isOrdered ? min(publishers ?? .max, 1 << 16, Self.entriesMax / queues) : 0
    next = Array(repeating: Self.unknown, count: queues * self.publishers)
    publishersMax = publishers ?? .max
  }

  /// Takes note of the next message of a queue. Missing ones are not reported here: they are
  /// missing in the count, or on their way to another consumer.
  @inline(__always)
  mutating func observe(_ number: UInt64, queue: Int) -> Finding {
    let publisher = Int(number >> 48)
    let index = queue &* publishers &+ publisher
    guard publisher < publishers, index < next.count else {
      return publisher < publishersMax ? .expected : .foreign
    }
    let sequence = number & Self.sequenceMask
    let wanted = next[index]
    guard sequence >= wanted || wanted == Self.unknown else { return .misordered }
    next[index] = sequence &+ 1
    return .expected
  }
}
