import Base

/// When something of a queue ends: the life of its messages, and its own for want of use. Only queues have
/// one that need it: by their arguments, or since a message with an `expiration` came.
final class QueueTimes: Timed {
  var timetablePlace = TimetablePlace()
  // Unsafe but sound: the queue has this, and takes it out of the timetable when it is deleted.
  private unowned(unsafe) let queue: Queue
  private let broker: Broker
  /// Since when nobody has used the queue, in monotonic milliseconds; nil for a queue that recovery found,
  /// until the first turn: nobody could have used it before.
  private var unusedSince: Int64?
  /// The front that was looked at last: its lane and sequence.
  private var seenLane: UInt32 = 0
  private var seenSequence: UInt64 = 0

  init(_ queue: Queue) {
    self.queue = queue
    broker = queue.broker
    if !broker.isRecovering { unusedSince = broker.time }
    if queue.settings?.expires != nil { broker.deadlines.arm(self, at: broker.time) }
  }

  /// Somebody has used the queue.
  func used() {
    unusedSince = broker.time
    guard let expires = queue.settings?.expires, queue.consumerCount == 0 else { return }
    broker.deadlines.armEarlier(self, at: broker.time + expires)
  }

  /// A message expires at this date. It is looked at then if it is the next one.
  func expect(_ date: Int64) {
    broker.deadlines.armEarlier(self, at: max(broker.time, broker.dates.time(of: date)))
  }

  /// The next messages are looked at when this turn ends.
  func look() {
    broker.deadlines.armEarlier(self, at: broker.time)
  }

  /// It is another message than the one that was looked at last.
  func isNew(_ sequence: UInt64, of lane: UInt32) -> Bool {
    guard seenSequence != sequence || seenLane != lane else { return false }
    seenSequence = sequence
    seenLane = lane
    return true
  }

  func end() {
    broker.deadlines.cancel(self)
  }

  func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
    let queue = queue
    let end = unusedUntil(time)
    if let end, end <= time {
      steps -= Self.stepsOfDeletion
      queue.vhost.remove(queue, .expired)
      return nil
    }
    let next = queue.dropExpired(&steps)
    // What left may have come back as another message.
    let added = broker.deadlines.time(of: self)
    return [end, next, added].compactMap(\.self).min()
  }

  private static let stepsOfDeletion = 12

  /// When the queue goes if nobody uses it; nil for never, and while it has consumers.
  private func unusedUntil(_ time: Int64) -> Int64? {
    guard let expires = queue.settings?.expires, queue.consumerCount == 0 else { return nil }
    let since = unusedSince ?? time
    unusedSince = since
    return since + expires
  }
}
