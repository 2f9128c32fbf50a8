import Base
import Journal

/// Ids, and names that nobody must guess.
extension Broker {
  /// Ids for a queue and its lane.
  func takeQueueIDs(isDurable: Bool) throws(BrokerError) -> (queue: UInt32, lane: UInt32) {
    guard let queue = queueNumbers.take(isDurable: isDurable) else {
      throw .limitReached(.numbers(kind: "queue", max: Numbers.firstTransient))
    }
    do throws(BrokerError) {
      return (queue, try takeLaneID(isDurable: isDurable))
    } catch {
      queueNumbers.giveBack(queue)
      throw error
    }
  }

  func takeLaneID(isDurable: Bool) throws(BrokerError) -> UInt32 {
    guard let lane = laneNumbers.take(isDurable: isDurable) else {
      throw .limitReached(.numbers(kind: "lane", max: Numbers.firstTransient))
    }
    return lane
  }

  func takeExchangeID(isDurable: Bool) throws(BrokerError) -> UInt32 {
    guard let id = exchangeNumbers.take(isDurable: isDurable) else {
      throw .limitReached(.numbers(kind: "exchange", max: Numbers.firstTransient))
    }
    return id
  }

  /// Ids that a log has used are never used again.
  func useIDs(queue: UInt32 = 0, lane: UInt32 = 0, exchange: UInt32 = 0) {
    queueNumbers.use(before: queue)
    if !Sabotage.is(.reusesLaneIDs) { laneNumbers.use(before: lane) }
    exchangeNumbers.use(before: exchange)
  }

  private static let nameAlphabet = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

  /// A name that nobody has: the prefix and 22 characters for 132 random bits.
  func makeName(_ prefix: String) -> Name {
    var bytes = Array(prefix.utf8)
    for _ in 0..<22 { bytes.append(Self.nameAlphabet[Int(random() & 63)]) }
    return Name(bytes)
  }
}
