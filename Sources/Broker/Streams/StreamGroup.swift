import Base
import Journal

/// Consumers that share the partitions of a stream: each partition is read by one of them at a time, and what they
/// acknowledge is remembered as one offset for each partition, which survives.
///
/// Who joins or leaves changes only what has to change (`rebalance`, when the turn ends): members keep what they
/// have as far as the shares stay even. A partition changes hands once its old reader has acknowledged what it has, or after
/// `handOverMilliseconds`; what it has then is read by the new one as well, and its acknowledgements mean nothing
/// any more, since its lane is gone (`Lane.isDeleted`).
final class StreamGroup: Timed {
  var timetablePlace = TimetablePlace()
  let name: Name
  // Unsafe but sound: the stream has this.
  private unowned(unsafe) let stream: Stream
  private let broker: Broker
  /// By the numbers of their partitions. Those that the stream has got since members came or left last have none:
  /// the group begins there with the first record.
  private var places: [Place] = []
  /// What the account of memory has of it.
  private var countedBytes = 0
  /// When the log is told of what filters passed over, at the latest; nil if it knows all.
  private var tellsLogAt: Int64?
  /// In the order in which they came.
  private(set) var members: [StreamFeed] = []
  /// Somebody has joined or left in this turn.
  private var isUneven = false
  /// Its stream is deleted.
  private var isOver = false

  /// Where the group stands in a partition.
  private struct Place {
    /// All records before this one are acknowledged.
    var committed: UInt64
    /// What the log has of that: filters pass records over more often than the log is told.
    var logged: UInt64 = 0
    /// Records behind it that are acknowledged as well.
    var acknowledged = SequenceSet()
    /// What the account of memory has of those.
    var countedBytes = 0
    /// Records before this one may have been delivered.
    var deliveredEnd: UInt64 = 0
    /// Who reads it, and who is to read it.
    var holder: StreamFeed?
    var wanted: StreamFeed?
    /// When it changes hands, at the latest.
    var handOverAt: Int64?
  }

  /// A member has so long to acknowledge what it has of a partition that another one is to read.
  static let handOverMilliseconds: Int64 = 10_000
  /// The log is told of records that filters passed over after so many, or so long.
  static let passedMax: UInt64 = 65_536
  static let passedMilliseconds: Int64 = 5000
  /// Memory that is kept for records that are acknowledged out of turn while there are none, per partition.
  private static let emptyBytesMax = 1024

  init(_ name: Name, of stream: Stream) {
    self.name = name
    self.stream = stream
    broker = stream.broker
  }

  /// A group that nobody knew begins there.
  func begin(at beginning: StreamReading.Beginning) {
    for partition in stream.partitions {
      places.append(Place(committed: partition.offset(at: beginning)))
      log(partition.index)
    }
    countBytes()
  }

  /// What the log says.
  func restore(_ offset: UInt64, of partition: Int) {
    addPlaces(upTo: partition)
    places[partition].committed = offset
    places[partition].logged = offset
  }

  /// The log was read: what was delivered before is not known.
  func recovered() {
    addPlaces(upTo: stream.partitions.count - 1)
    for partition in stream.partitions {
      places[partition.index].deliveredEnd = partition.visibleEnd
    }
    countBytes()
  }

  private func countBytes() {
    let ranges = places.reduce(0) { $0 + $1.countedBytes }
    let bytes = 256 + name.bytes.count + places.capacity * MemoryLayout<Place>.stride + ranges
    broker.account.add(bytes - countedBytes, to: .entries)
    countedBytes = bytes
  }

  private func addPlaces(upTo partition: Int) {
    while places.count <= partition { places.append(Place(committed: 0)) }
  }

  // MARK: Offsets

  /// All records of the partition before this one are acknowledged.
  func committed(_ partition: Int) -> UInt64 {
    partition < places.count ? places[partition].committed : 0
  }

  /// Who reads the partition.
  func holder(_ partition: Int) -> StreamFeed? {
    partition < places.count ? places[partition].holder : nil
  }

  /// Records that are there, and not acknowledged.
  func lag(_ index: Int) -> UInt64 {
    let partition = stream.partitions[index]
    let end = partition.visibleEnd
    return end - min(end, max(partition.start, committed(index)))
  }

  /// The group goes on at these offsets; it has no members. All of them are one in the log.
  func reset(_ offsets: [(partition: Int, offset: UInt64)]) {
    invariant(members.isEmpty, "a group is reset while it has members")
    addPlaces(upTo: stream.partitions.count - 1)
    countBytes()
    broker.journal.group {
      for (partition, offset) in offsets {
        places[partition].committed = offset
        places[partition].acknowledged = SequenceSet()
        countRanges(partition)
        log(partition)
      }
    }
  }

  /// Whether a member had acknowledged the record, or passed it over, before another one took the partition over.
  func isAcknowledged(_ offset: UInt64, of partition: Int) -> Bool {
    offset < places[partition].committed || places[partition].acknowledged.contains(offset)
  }

  /// A record goes to a client; returns whether one may have had it.
  func delivers(_ offset: UInt64, of partition: Int) -> Bool {
    if offset < places[partition].deliveredEnd { return true }
    places[partition].deliveredEnd = offset + 1
    return false
  }

  /// The records of these sequences are acknowledged.
  func settle(_ ranges: [Lane.SettledRange], of partition: Int) {
    if isOver { return }
    let before = places[partition].committed
    for range in ranges { take(range.first - 1..<range.first - 1 + range.count, of: partition) }
    joinAcknowledged(partition)
    if places[partition].committed != before { log(partition) }
  }

  /// A member's filter passes records over, which counts as acknowledging them. They may be many, or few at a
  /// time for ever: the log is told now and then. After a crash the rest is looked at again.
  func pass(_ offsets: Range<UInt64>, of partition: Int) {
    if isOver { return }
    take(offsets, of: partition)
    joinAcknowledged(partition)
    let passed = places[partition].committed - places[partition].logged
    if passed >= Self.passedMax { return log(partition) }
    guard passed > 0, tellsLogAt == nil else { return }
    let date = broker.time + Self.passedMilliseconds
    tellsLogAt = date
    broker.deadlines.armEarlier(self, at: date)
  }

  private func take(_ offsets: Range<UInt64>, of partition: Int) {
    if offsets.lowerBound <= places[partition].committed {
      places[partition].committed = max(places[partition].committed, offsets.upperBound)
    } else if !offsets.isEmpty {
      places[partition].acknowledged.insert(offsets.lowerBound...offsets.upperBound - 1)
    }
  }

  /// Records before this one are gone, whether or not somebody had them.
  func skip(to offset: UInt64, of partition: Int) {
    guard !isOver, offset > places[partition].committed else { return }
    places[partition].committed = offset
    joinAcknowledged(partition)
    log(partition)
  }

  private func joinAcknowledged(_ partition: Int) {
    while let first = places[partition].acknowledged.ranges.first,
      first.lowerBound <= places[partition].committed
    {
      places[partition].committed = max(places[partition].committed, first.upperBound + 1)
      places[partition].acknowledged.remove(first)
    }
    if places[partition].acknowledged.ranges.isEmpty,
      places[partition].acknowledged.memoryBytes > Self.emptyBytesMax
    {
      places[partition].acknowledged = SequenceSet()
    }
    countRanges(partition)
  }

  private func countRanges(_ partition: Int) {
    let bytes = places[partition].acknowledged.memoryBytes
    let added = bytes - places[partition].countedBytes
    guard added != 0 else { return }
    places[partition].countedBytes = bytes
    countedBytes += added
    broker.account.add(added, to: .entries)
  }

  private func log(_ partition: Int) {
    guard broker.journal.failure == nil else { return }
    record(partition).append(to: broker.journal)
    places[partition].logged = places[partition].committed
  }

  private func record(_ partition: Int) -> RawRecord {
    GroupOffsetRecord.raw(
      lane: stream.partitions[partition].id, offset: places[partition].committed, group: name)
  }

  /// For a checkpoint: what the log is to say of partitions with ids below.
  func records(below newLanes: UInt32) -> [RawRecord] {
    stream.partitions.filter { $0.id < newLanes && $0.index < places.count }.map {
      record($0.index)
    }
  }

  // MARK: Members

  /// Members share the partitions that the stream has got since as well. Returns how many these are.
  func readMore() -> Int {
    let before = places.count
    if !members.isEmpty { rebalance() }
    return places.count - before
  }

  func join(_ feed: StreamFeed) throws(BrokerError) {
    let max = BrokerLimits.streamGroupMembersMax
    guard members.count < max else {
      throw .limitReached(
        .groupMembers(group: name, stream: stream.name, in: stream.vhost.name, max: max))
    }
    members.append(feed)
    becameUneven()
  }

  /// What the member had comes again, to others.
  func leave(_ feed: StreamFeed) {
    members.removeAll { $0 === feed }
    for index in places.indices {
      if places[index].wanted === feed { places[index].wanted = nil }
      guard places[index].holder === feed else { continue }
      places[index].holder = nil
      places[index].handOverAt = nil
    }
    becameUneven()
  }

  /// Many may come or go in a turn.
  private func becameUneven() {
    guard !isOver else { return }
    isUneven = true
    broker.deadlines.armEarlier(self, at: broker.time)
  }

  /// Gives each member its share: those that have too much give up what they got last.
  private func rebalance() {
    if places.count < stream.partitions.count, !members.isEmpty {
      addPlaces(upTo: stream.partitions.count - 1)
      countBytes()
    }
    var shares: [ObjectIdentifier: [Int]] = [:]
    for member in members { shares[ObjectIdentifier(member)] = [] }
    var free: [Int] = []
    for index in places.indices {
      if let wanted = places[index].wanted, shares[ObjectIdentifier(wanted)] != nil {
        shares[ObjectIdentifier(wanted)]?.append(index)
      } else {
        places[index].wanted = nil
        free.append(index)
      }
    }
    guard !members.isEmpty else { return }
    let (share, rest) = places.count.quotientAndRemainder(dividingBy: members.count)
    // Those who have more keep the larger shares.
    let order = members.indices.sorted {
      let (left, right) = (
        shares[ObjectIdentifier(members[$0])]?.count ?? 0,
        shares[ObjectIdentifier(members[$1])]?.count ?? 0
      )
      return left == right ? $0 < $1 : left > right
    }
    var limits: [(member: StreamFeed, limit: Int)] = []
    for (rank, index) in order.enumerated() {
      let member = members[index]
      let limit = share + (rank < rest ? 1 : 0)
      limits.append((member, limit))
      while let count = shares[ObjectIdentifier(member)]?.count, count > limit,
        let last = shares[ObjectIdentifier(member)]?.popLast()
      {
        free.append(last)
      }
    }
    free.sort(by: >)
    for (member, limit) in limits {
      while let count = shares[ObjectIdentifier(member)]?.count, count < limit,
        let next = free.popLast()
      {
        shares[ObjectIdentifier(member)]?.append(next)
        places[next].wanted = member
      }
    }
    for index in places.indices { handOver(index) }
  }

  /// Lets the partition go to whom it is meant for, at once or when its reader is done with what it has.
  private func handOver(_ index: Int) {
    let place = places[index]
    guard let wanted = place.wanted else { return }
    guard let holder = place.holder else {
      places[index].holder = wanted
      places[index].handOverAt = nil
      return wanted.assign(stream.partitions[index], from: place.committed)
    }
    if holder === wanted {
      if place.handOverAt != nil { holder.keep(index) }
      places[index].handOverAt = nil
      return
    }
    guard place.handOverAt == nil else { return }
    let until = broker.time + Self.handOverMilliseconds
    places[index].handOverAt = until
    broker.deadlines.armEarlier(self, at: until)
    holder.leave(index)
  }

  /// The reader of a partition that is to change hands is done with what it has of it.
  func isDone(_ feed: StreamFeed, with index: Int) {
    guard !isOver, places[index].holder === feed, places[index].handOverAt != nil else { return }
    release(index)
  }

  private func release(_ index: Int) {
    places[index].holder?.giveUp(index)
    places[index].holder = nil
    places[index].handOverAt = nil
    handOver(index)
  }

  func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
    steps -= places.count
    if isUneven {
      isUneven = false
      steps -= members.count
      rebalance()
    }
    for index in places.indices {
      if let until = places[index].handOverAt, until <= time { release(index) }
    }
    if let date = tellsLogAt, date <= time { tellLog() }
    let next = places.compactMap(\.handOverAt).min()
    return [next, tellsLogAt].compactMap(\.self).min()
  }

  /// The log gets to know how far filters have brought the group.
  func tellLog() {
    tellsLogAt = nil
    for index in places.indices where places[index].logged < places[index].committed { log(index) }
  }

  /// Its stream is deleted, with all that its members read.
  func end() {
    isOver = true
    broker.deadlines.cancel(self)
    broker.account.add(-countedBytes, to: .entries)
    members = []
    places = []
  }
}
