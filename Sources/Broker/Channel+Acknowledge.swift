import AMQP
import Base

extension Channel {
  /// Deletes the message with this tag, or all up to it; tag 0 with `isMultiple` means all.
  @inline(__always)
  public func acknowledge(_ tag: UInt64, isMultiple: Bool) throws(PeerError) {
    let hadCredit = hasCredit
    if isMultiple {
      try checkMultiple(tag)
      while let first = unacknowledged.first, tag == 0 || first.tag <= tag {
        settle(unacknowledged.removeFirst())
      }
    } else {
      let isWrong = Sabotage.is(.acknowledgesNeighbour) && unacknowledged.contains(tag &+ 1)
      guard let delivery = unacknowledged.remove(isWrong ? tag &+ 1 : tag) else {
        throw .unknownDeliveryTag(tag: tag)
      }
      settle(delivery)
    }
    if !hadCredit { touchQueues() }
  }

  /// Gives the message with this tag, or all up to it, back to its queue, or drops it.
  public func reject(_ tag: UInt64, isMultiple: Bool, requeues: Bool) throws(PeerError) {
    guard requeues else { return try acknowledge(tag, isMultiple: isMultiple) }
    let hadCredit = hasCredit
    var deliveries: [PendingDelivery] = []
    if isMultiple {
      try checkMultiple(tag)
      while let first = unacknowledged.first, tag == 0 || first.tag <= tag {
        deliveries.append(unacknowledged.removeFirst())
      }
    } else {
      guard let delivery = unacknowledged.remove(tag) else { throw .unknownDeliveryTag(tag: tag) }
      deliveries.append(delivery)
    }
    giveBack(deliveries)
    // Credit of the whole channel may have let consumers of other queues wait.
    if !hadCredit { touchQueues() }
  }

  /// Gives all that is not acknowledged back to its queues.
  public func recover() {
    giveBackAll()
    touchQueues()
  }

  func giveBackAll() {
    var deliveries: [PendingDelivery] = []
    deliveries.reserveCapacity(unacknowledged.count)
    while unacknowledged.count > 0 { deliveries.append(unacknowledged.removeFirst()) }
    giveBack(deliveries)
  }

  /// The upper tag of a range must itself be unacknowledged.
  private func checkMultiple(_ tag: UInt64) throws(PeerError) {
    guard tag == 0 || unacknowledged.contains(tag) else { throw .unknownDeliveryTag(tag: tag) }
  }

  @inline(__always)
  private func settle(_ delivery: PendingDelivery) {
    guard let queue = delivery.queue else { return }
    queue._withUnsafeGuaranteedRef { queue in
      queue.settleLocked(delivery.entry)
      if queue.isDeleted { broker.forgetIfDone(queue) }
    }
    release(delivery.consumer)
  }

  @inline(__always)
  private func release(_ consumer: Unmanaged<Consumer>?) {
    guard let consumer else { return }
    consumer._withUnsafeGuaranteedRef { consumer in
      consumer.unacknowledged &-= 1
      if consumer.isCancelled {
        if consumer.unacknowledged == 0 { forget(consumer) }
      } else if consumer.queue.hasReady {
        consumer.queue.touch()
      }
    }
  }

  private func giveBack(_ deliveries: [PendingDelivery]) {
    var byQueue: [UInt32: (queue: Queue, entries: [Entry])] = [:]
    for delivery in deliveries {
      guard let queue = delivery.queue?.takeUnretainedValue() else { continue }
      byQueue[queue.id, default: (queue, [])].entries.append(delivery.entry)
      release(delivery.consumer)
    }
    for (queue, entries) in byQueue.values.sorted(by: { $0.queue.id < $1.queue.id }) {
      queue.giveBack(entries)
      if queue.isDeleted { broker.forgetIfDone(queue) }
    }
  }
}
