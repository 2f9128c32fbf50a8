/// A queue's consumers in the order of service: those of the highest priority that can take a message
/// first, and equals in turns.
struct ConsumerRounds {
  private struct Round {
    let priority: Int64
    /// In the order in which they came; never empty.
    var consumers: [Consumer]
    /// Whose turn it is; at most one behind the last.
    var next = 0

    /// The next one that can take a message, and whose turn it is after that.
    @inline(__always)
    func nextReady() -> (consumer: Consumer, after: Int)? {
      var index = next
      for _ in 0..<consumers.count {
        if index == consumers.count { index = 0 }
        let consumer = consumers[index]
        index &+= 1
        if consumer.isReady { return (consumer, index) }
      }
      return nil
    }
  }

  /// Each priority's round, the highest first.
  private var rounds: [Round] = []
  private(set) var count = 0
  /// The round and the turn that `advance` goes on to.
  private var chosen = (round: 0, next: 0)

  var all: [Consumer] { rounds.flatMap(\.consumers) }

  /// The consumer, when there is only one.
  @inline(__always) var single: Consumer? { count == 1 ? rounds[0].consumers[0] : nil }

  mutating func add(_ consumer: Consumer) {
    count += 1
    let place = rounds.firstIndex { $0.priority <= consumer.priority } ?? rounds.count
    if place < rounds.count, rounds[place].priority == consumer.priority {
      rounds[place].consumers.append(consumer)
    } else {
      rounds.insert(Round(priority: consumer.priority, consumers: [consumer]), at: place)
    }
  }

  /// False if the consumer is not here.
  mutating func remove(_ consumer: Consumer) -> Bool {
    guard let place = rounds.firstIndex(where: { $0.priority == consumer.priority }),
      let index = rounds[place].consumers.firstIndex(where: { $0 === consumer })
    else { return false }
    count -= 1
    rounds[place].consumers.remove(at: index)
    if rounds[place].next > index { rounds[place].next -= 1 }
    if rounds[place].consumers.isEmpty { rounds.remove(at: place) }
    return true
  }

  /// The consumer whose turn it is, until `advance`; nil while none can take a message.
  @inline(__always)
  mutating func nextReady() -> Consumer? {
    for index in rounds.indices {
      if let (consumer, after) = rounds[index].nextReady() {
        chosen = (index, after)
        return consumer
      }
    }
    return nil
  }

  /// The consumer that `nextReady` gave is served: it is the next one's turn.
  @inline(__always)
  mutating func advance() {
    rounds[chosen.round].next = chosen.next
  }
}
