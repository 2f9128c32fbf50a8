import Base

/// The lanes of a queue with priorities, one for each priority that messages have come with. The highest
/// that has something ready is served.
struct QueueLevels {
  /// By their priorities, as far as there are any.
  private var lanes: [Lane?]
  /// Bits of the priorities whose lanes have something ready, and of some that had.
  private var filled: [UInt64] = [0, 0, 0, 0]

  init(_ lane: Lane) {
    lanes = []
    add(lane)
  }

  func lane(_ priority: UInt32) -> Lane? {
    priority < lanes.count ? lanes[Int(priority)] : nil
  }

  mutating func add(_ lane: Lane) {
    let place = Int(lane.priority)
    if place >= lanes.count {
      lanes += Array(repeating: nil, count: place + 1 - lanes.count)
    }
    lanes[place] = lane
  }

  /// There is something ready in a lane.
  @inline(__always)
  mutating func noteFilled(_ priority: UInt32) {
    filled[Int(priority >> 6)] |= 1 << UInt64(priority & 63)
  }

  /// The lane of the highest priority that has something ready.
  mutating func highest() -> Lane? {
    for word in filled.indices.reversed() {
      while filled[word] != 0 {
        let bit = 63 - filled[word].leadingZeroBitCount
        if let lane = lanes[word << 6 | bit], lane.hasReady { return lane }
        filled[word] &= ~(1 << UInt64(bit))
      }
    }
    return nil
  }
}

extension Queue {
  /// There may be a lane of this priority, and is none.
  func canTake(laneOfPriority priority: UInt32) -> Bool {
    guard let levels, let settings else { return false }
    return priority <= settings.priorityMax && levels.lane(priority) == nil
  }

  /// The lane for messages of a priority, if there is one: priorities above the highest are the highest.
  func lane(forPriority priority: UInt8) -> Lane? {
    guard let levels, let settings else { return lanes[0] }
    return levels.lane(min(UInt32(priority), settings.priorityMax))
  }

  /// There is a lane for messages of this priority from now on; one that survives is told to the log,
  /// before the messages that go there.
  func prepareLane(forPriority priority: UInt8) throws(BrokerError) {
    guard let settings, lane(forPriority: priority) == nil else { return }
    let id = try broker.takeLaneID(isDurable: isDurable)
    let lane = Lane(
      id: id, priority: min(UInt32(priority), settings.priorityMax), isDurable: isDurable,
      broker: broker)
    add(lane)
    if isDurable { broker.catalog.append(lane) }
  }
}
