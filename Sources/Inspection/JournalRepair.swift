import AMQP
import Base
import Broker
import IO
import Journal

/// Brings a damaged journal to a state with which the broker starts; `Specs/Journal.md`, "Repair", has
/// how and why. What is lost or set aside stands in `report`.
package final class JournalRepair {
  package let verification: JournalVerification
  /// What of a lane is kept and what is not.
  struct Outcome {
    let lane: JournalCensus.LaneCensus
    /// Messages of the log that are alive.
    let logged: [JournalCensus.Logged]
    /// Of its queue.
    let declaration: RawRecord
    var keptCount = 0
    var lostCountMax = 0
    /// The end of the log is damaged, and nothing shows how many of its messages stood there.
    var isLossUnknown = false
    var returningCountMax = 0
    /// Of a partition: offsets whose records are lost.
    var lostOffsets: [Range<UInt64>] = []
  }

  private(set) var outcomes: [Outcome] = []
  let line: (SetAsideMessage) -> [UInt8]
  var census: JournalCensus { verification.census }
  var survey: JournalSurvey { verification.survey }

  /// `line` writes a message that is set aside into a file for people; the journal does not care how.
  package init(
    _ verification: JournalVerification, line: @escaping (SetAsideMessage) -> [UInt8] = { _ in [] }
  ) {
    self.verification = verification
    self.line = line
    var names: Set<Name> = []
    var declarations: [UInt32: RawRecord] = [:]
    var priorities: [UInt32: UInt32] = [:]
    for lane in verification.census.lanes.values {
      priorities[lane.queueID ?? 0, default: 0] = max(
        priorities[lane.queueID ?? 0] ?? 0, lane.priority)
    }
    // Partitions of a stream are declared by their numbers.
    let lanes = verification.census.lanes.values.sorted {
      ($0.queueID ?? 0, $0.place) < ($1.queueID ?? 0, $1.place)
    }
    for lane in lanes {
      let queue = lane.queueID ?? 0
      let declaration =
        declarations[queue]
        ?? Self.declaration(
          of: lane, priorityMax: priorities[queue] ?? 0, isProven: census.isProven,
          avoiding: &names)
      declarations[queue] = declaration
      var outcome = Outcome(
        lane: lane, logged: verification.aliveInLog(lane), declaration: declaration)
      let inFiles = verification.aliveInFiles(lane)
      outcome.keptCount = inFiles + outcome.logged.count
      outcome.lostOffsets = lostOffsets(lane, outcome.logged)
      outcome.lostCountMax =
        lane.role == .partition
        ? outcome.lostOffsets.reduce(0) { $0 + $1.count } : lostCountMax(lane, outcome.logged)
      outcome.isLossUnknown = lane.isInDoubt && isEndDamaged
      if lane.role == .partition {
        // Reading takes nothing away that could come back.
      } else if let damage = census.damage.last {
        outcome.returningCountMax =
          inFiles + outcome.logged.count { $0.position < damage.lowerBound }
      } else if !census.isProven {
        outcome.returningCountMax = outcome.keptCount
      }
      outcomes.append(outcome)
    }
  }

  /// Only what was proven is passed on as it is; a queue without a declaration gets one.
  private static func declaration(
    of lane: JournalCensus.LaneCensus, priorityMax: UInt32, isProven: Bool,
    avoiding names: inout Set<Name>
  ) -> RawRecord {
    if let declaration = lane.queueDeclaration, isProven || lane.queueNames.vhost == "/",
      names.insert(lane.queueNames.name).inserted || isProven
    {
      return declaration
    }
    if let name = lane.role.queueName, names.insert(name).inserted {
      return QueueRecord.raw(
        id: lane.queueID ?? 0, isAutoDelete: false, vhost: "/", name: name,
        arguments: FieldTable().encoded)
    }
    var name = "repaired-\(lane.id)"
    while !names.insert(Name(name)).inserted { name += "-again" }
    // Its lanes may be of several priorities, though nothing else is known of it.
    let arguments: FieldTable =
      lane.role == .partition
      ? StreamDeclaration.arguments(partitionCount: Int(priorityMax) + 1)
      : priorityMax > 0 ? ["x-max-priority": .int64(Int64(priorityMax))] : [:]
    return QueueRecord.raw(
      id: lane.queueID ?? 0, isAutoDelete: false, vhost: "/", name: Name(name),
      arguments: arguments.encoded)
  }

  /// Nothing behind the damage says what stood there: neither the log nor the checkpoint.
  var isEndDamaged: Bool {
    guard let last = census.damage.last else { return false }
    let known = census.isProven ? survey.checkpoint?.position ?? 0 : 0
    return last.upperBound > known
  }

  private func lostCountMax(
    _ lane: JournalCensus.LaneCensus, _ logged: [JournalCensus.Logged]
  ) -> Int {
    var count = lane.missingMax
    // The checkpoint may know of messages that came last.
    let known = max(lane.lastLogged, lane.messages.movedUpTo)
    if lane.isInDoubt, lane.messages.nextSequence > known + 1 {
      count += Int(lane.messages.nextSequence - known) - 1
    }
    for block in verification.damagedBlocks where block.lane == lane.id {
      let rescued = logged.count { (block.first...block.last).contains($0.sequence) }
      let alive = census.aliveInFiles(lane).intersection(block.first...block.last).count
      count += max(0, min(block.durableCount, alive) - rescued)
    }
    guard verification.hasUnknownBlocks else { return count }
    // What is alive and stands nowhere; messages that need not survive took such sequences too.
    let blocks = survey.laneFiles.flatMap(\.blocks)
      .filter { $0.lane == lane.id && $0.first <= $0.last }
    let last = max(lane.messages.movedUpTo, blocks.map(\.last).max() ?? 0)
    guard last > 0 else { return count }
    let alive = census.aliveInFiles(lane).intersection(1...last)
    var unseen = alive.count - logged.count { $0.sequence <= last }
    for block in blocks { unseen -= alive.intersection(block.first...block.last).count }
    return count + max(0, unseen)
  }

  // MARK: Doing it

  /// Writes a new journal into `repairDirectory`, which is on the journal's file system, and exchanges
  /// the two. `now` is wall-clock milliseconds.
  package func perform(in repairDirectory: String, now: Int64) throws(JournalError) {
    let new = repairDirectory + "/" + UnfinishedRepair.newName
    do throws(JournalError) {
      // What is exchanged below has no mark of its own, or it would be taken for the new journal.
      try UnfinishedRepair.unmark(survey.directory)
      try writeAll(in: repairDirectory, new, now: now)
      try system { () throws(SystemError) in
        try FileSystem.exchange(survey.directory, new)
      }
    } catch {
      discard(new)
      throw error
    }
    try system { () throws(SystemError) in
      try FileSystem.syncDirectory(survey.directory + "/..")
      try FileSystem.rename(new, repairDirectory + "/before")
      try FileSystem.syncDirectory(repairDirectory)
    }
    try UnfinishedRepair.unmark(survey.directory)
  }

  /// A full disk is not to be filled with half a journal. What cannot be removed does no harm.
  private func discard(_ directory: String) {
    do throws(SystemError) {
      try UnfinishedRepair.remove(directory)
    } catch {
      return
    }
  }

  /// The new journal, the report, and what is set aside, durably.
  private func writeAll(
    in repairDirectory: String, _ new: String, now: Int64
  ) throws(JournalError) {
    try system { () throws(SystemError) in
      try FileSystem.makeDirectories(repairDirectory)
    }
    let rebuild = try JournalRebuild(survey, into: new, records: BrokerRecords())
    try write([], to: new + "/" + UnfinishedRepair.mark)
    let kept = try keepLaneFiles(rebuild)
    var catalog = ids()
    for record in census.exchanges.values.sorted(by: { $0.word < $1.word }) {
      record.append(to: &catalog)
    }
    var declared: Set<UInt32> = []
    for outcome in outcomes {
      let records =
        outcome.lane.role == .partition
        ? try keepPartition(outcome, rebuild)
        : try keep(outcome, kept[outcome.lane.id] ?? [], rebuild)
      let queue = outcome.declaration.word
      if declared.insert(queue).inserted { outcome.declaration.append(to: &catalog) }
      LaneRecord.raw(
        id: outcome.lane.id, queue: queue, role: outcome.lane.role.rawValue,
        priority: outcome.lane.priority
      ).append(to: &catalog)
      for record in records { record.append(to: &catalog) }
      let groups = census.groupOffsets.filter { $0.key.lane == outcome.lane.id }
      for (_, offset) in groups.sorted(by: { $0.key.group < $1.key.group }) {
        offset.append(to: &catalog)
      }
    }
    for value in census.remembered where isKept(value, declared) { value.append(to: &catalog) }
    for record in producerRecords(of: declared) { record.append(to: &catalog) }
    for binding in census.bindings { binding.append(to: &catalog) }
    try rebuild.finish(catalog: catalog, epoch: census.epoch + 1, now: now)
    try setAside(in: repairDirectory)
    try write(Array(report.utf8), to: repairDirectory + "/report.txt")
    try system { () throws(SystemError) in
      try FileSystem.syncDirectory(new)
      try FileSystem.syncDirectory(repairDirectory)
      try FileSystem.syncDirectory(repairDirectory + "/..")
    }
  }

  /// What streams have of their producers, of each stream as many as it remembers: those that have published longest
  /// ago first, as it has them.
  private func producerRecords(of streams: Set<UInt32>) -> [RawRecord] {
    var counts: [UInt32: Int] = [:]
    let newest = census.producerSequences.sorted { $0.value.order > $1.value.order }.filter {
      counts[$0.key.stream, default: 0] += 1
      return streams.contains($0.key.stream)
        && counts[$0.key.stream, default: 0] <= BrokerLimits.streamProducersMax
    }
    return newest.reversed().map { place, known in
      ProducerSequenceRecord.raw(
        stream: place.stream, sequence: known.sequence, producer: place.producer)
    }
  }

  /// Whoever remembers the value or the message is there.
  private func isKept(_ value: RawRecord, _ queues: Set<UInt32>) -> Bool {
    value.kind == BrokerRecord.Kind.remembered.rawValue
      && value.flags & RememberedRecord.ofQueueFlag != 0
      ? queues.contains(value.word) : census.exchanges[value.word] != nil
  }

  /// Links or copies lane files; returns all blocks that the new journal's tables have, by lanes and in
  /// order.
  private func keepLaneFiles(
    _ rebuild: JournalRebuild
  ) throws(JournalError) -> [UInt32: [LaneBlock]] {
    var kept: [LaneBlock] = []
    for file in survey.laneFiles {
      guard let sound = verification.soundBlocks[file.number], !sound.isEmpty else { continue }
      if file.isSound, !verification.spoiledFiles.contains(file.number) {
        try rebuild.link(file)
        kept += file.blocks
      } else {
        try rebuild.copy(file, sound)
        kept += sound
      }
    }
    return Dictionary(grouping: kept, by: \.lane)
      .mapValues { $0.sorted { $0.first < $1.first } }
  }

  /// Puts the messages of the log into lane files; returns the lane's state. `kept` are all blocks of the
  /// lane that the new journal has so far.
  private func keep(
    _ outcome: Outcome, _ kept: [LaneBlock], _ rebuild: JournalRebuild
  ) throws(JournalError) -> [RawRecord] {
    let lane = outcome.lane
    let alive = census.aliveInFiles(lane)
    var ranges: [ClosedRange<UInt64>] = []
    for block in verification.blocksBySequence[lane.id] ?? [] {
      ranges += alive.intersection(block.first...block.last).ranges
    }
    var passed: Int?
    for message in outcome.logged {
      // A block must not reach over another one.
      let before = kept.countEnding(before: message.sequence)
      let begins = before != passed
      try rebuild.add(
        lane: lane.id, sequence: message.sequence, position: message.position,
        beginsBlock: begins)
      if begins {
        ranges.append(message.sequence...message.sequence)
      } else {
        ranges[ranges.count - 1] = ranges[ranges.count - 1].lowerBound...message.sequence
      }
      passed = before
    }
    return state(lane, ranges.sorted { $0.lowerBound < $1.lowerBound }, kept.last?.last ?? 0)
  }

  private func state(
    _ lane: JournalCensus.LaneCensus, _ ranges: [ClosedRange<UInt64>], _ lastKept: UInt64
  ) -> [RawRecord] {
    var alive = SequenceSet()
    for range in ranges { alive.append(range) }
    let movedUpTo = max(
      lane.messages.movedUpTo, lastKept, alive.ranges.last?.upperBound ?? 0)
    let next = max(lane.messages.nextSequence, movedUpTo + 1)
    // Deliveries may have stood where the log is damaged.
    let isDeliveredKnown = census.damage.isEmpty && census.isProven && !survey.isAfterFailure
    let delivered = isDeliveredKnown ? lane.messages.deliveredUpTo : next - 1
    return [
      LaneStateRecord.raw(
        lane: lane.id, nextSequence: next, deliveredUpTo: delivered, movedUpTo: movedUpTo),
      LaneAliveRecord.raw(lane: lane.id, ranges: alive.ranges.map(SequenceRange.init)),
    ] + counts(lane.messages, of: lane.id, alive)
  }

  private static let countsPerRecord = 1 << 16

  private func counts(
    _ messages: RecoveringLane, of lane: UInt32, _ alive: SequenceSet
  ) -> [RawRecord] {
    let kept = messages.counts.filter { alive.contains($0.key) }.sorted { $0.key < $1.key }
      .map { DeliveryCount(sequence: $0.key, count: $0.value) }
    return stride(from: 0, to: kept.count, by: Self.countsPerRecord).map { start in
      DeliveryCountsRecord.raw(
        lane: lane, counts: Array(kept[start..<min(kept.count, start + Self.countsPerRecord)]))
    }
  }

  private func ids() -> [UInt8] {
    var bytes: [UInt8] = []
    IdsRecord.raw(
      nextQueue: census.nextQueueID, nextExchange: census.nextExchangeID,
      nextLane: census.nextLaneID
    ).append(to: &bytes)
    return bytes
  }

  // MARK: What is set aside

  /// Names and contents of what the new journal does not have.
  private func setAside(in directory: String) throws(JournalError) {
    for piece in damagedPieces {
      let path = directory + "/" + Self.name(piece)
      try write([], to: path)
      try survey.readLog(piece) { (offset, bytes) throws(SystemError) in
        let file = try SystemDisk().open(path, .readWrite)
        try file.write(at: offset, bytes)
        try file.sync()
      }
    }
    for (segment, range) in damagedParts {
      try write(
        try survey.bytes(of: segment.partition, base: segment.segment.base, range),
        to: directory + "/" + Self.name(segment, range))
    }
    for block in verification.damagedBlocks {
      try write(try survey.bytes(of: block), to: directory + "/" + Self.name(block))
      let messages = try unprovenMessages(block)
      guard !messages.isEmpty else { continue }
      try write(messages, to: directory + "/" + Self.messagesName(block))
    }
  }

  /// A line for each message of a damaged block that can still be read.
  private func unprovenMessages(_ block: LaneBlock) throws(JournalError) -> [UInt8] {
    guard let lane = census.lanes[block.lane] else { return [] }
    let alive = census.aliveInFiles(lane)
    var lines: [UInt8] = []
    try survey.readUnproven(block, isWellFormed: RecordForm.isMessage) { message in
      guard message.isDurable, alive.contains(message.sequence),
        let record = RecordForm.message(message.record)
      else { return }
      lines += line(
        SetAsideMessage(queue: lane.queueNames.name, sequence: message.sequence, record))
    }
    return lines
  }

  /// The damaged ranges of the log, as far as there are files.
  var damagedPieces: [Range<Int>] { census.damage.flatMap { survey.pieces(of: $0) } }

  static func messagesName(_ block: LaneBlock) -> String { name(block) + ".messages" }

  static func name(_ range: Range<Int>) -> String {
    "log-\(String(range.lowerBound, radix: 16)).damaged"
  }

  static func name(_ block: LaneBlock) -> String {
    let file = JournalVerification.laneName(block.file).dropLast(".lanes".count)
    return "\(file)-\(String(block.offset, radix: 16)).damaged"
  }

  private func write(_ bytes: [UInt8], to path: String) throws(JournalError) {
    try system { () throws(SystemError) in
      let file = try File(path, .readWrite, creates: true)
      try file.write(at: 0, bytes)
      try file.sync()
    }
  }
}

/// A message that can be read, but of which nothing says that it is as it was.
package struct SetAsideMessage {
  package let queue: Name
  package let sequence: UInt64
  package let exchange: Name
  package let key: Name
  /// As on the wire: flags and values.
  package let properties: [UInt8]
  package let body: [UInt8]

  init(queue: Name, sequence: UInt64, _ record: MessageRecord) {
    self.queue = queue
    self.sequence = sequence
    exchange = record.exchange
    key = record.routingKey
    properties = Array(record.properties)
    body = Array(record.body)
  }
}

extension SequenceSet {
  var count: Int { ranges.reduce(0) { $0 + Int($1.upperBound - $1.lowerBound) + 1 } }
}
