import Base
import Broker
import Journal

/// Reads a whole journal and says everything in it that is not sound, and how many messages of each
/// queue are alive. Changes nothing.
package final class JournalVerification {
  package struct QueueCount: Equatable, Sendable {
    package let id: UInt32
    package let vhost: Name
    package let name: Name
    let inLog: Int
    package let inLanes: Int
    package var isStream = false

    package var count: Int { inLog + inLanes }
  }

  package internal(set) var problems: [JournalProblem]
  /// In the order of their ids.
  package private(set) var queues: [QueueCount] = []
  package private(set) var blocks = 0
  package private(set) var blocksAlive = 0
  package let survey: JournalSurvey
  package var log: LogSurvey { census.log }

  let census: JournalCensus
  /// Blocks with something alive: those that are sound by their files, and those that are not.
  private(set) var soundBlocks: [UInt32: [LaneBlock]] = [:]
  private(set) var damagedBlocks: [LaneBlock] = []
  /// What was found of the segments of each partition.
  var segments: [UInt32: [FoundSegment]] = [:]
  /// Files that cannot stay as they are.
  private(set) var spoiledFiles: Set<UInt32> = []
  private var inFiles: [UInt32: Int] = [:]

  /// `progress` gets words for what is being read now and then.
  package init(
    directory: String, progress: @escaping (String) -> Void = { _ in }
  ) throws(JournalError) {
    let survey = try JournalSurvey(directory: directory)
    self.survey = survey
    problems = survey.problems
    census = try JournalCensus(survey) { progress("log position \($0)") }
    noteDamage()
    for number in survey.missingLaneFiles where !census.removedLaneFiles.contains(number) {
      problems.append(JournalProblem(Self.laneName(number), "the lane file is missing"))
    }
    var all: [LaneBlock] = []
    for file in survey.laneFiles where !census.removedLaneFiles.contains(file.number) {
      progress(file.name)
      for block in file.blocks { census.meet(block) }
      all += try verify(file)
    }
    verifyOrder(all)
    for file in survey.partitionFiles { census.meet(file) }
    census.complete()
    try verifyPartitions(progress)
    count()
  }

  package var isSound: Bool { problems.isEmpty }

  /// Missing lane files that nothing excuses.
  var lostLaneFiles: [UInt32] {
    survey.missingLaneFiles.filter { !census.removedLaneFiles.contains($0) }
  }

  /// Blocks are missing of which nothing is known.
  var hasUnknownBlocks: Bool {
    !lostLaneFiles.isEmpty || survey.laneFiles.contains { !$0.isSound }
  }

  static func laneName(_ number: UInt32) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits + ".lanes"
  }

  // MARK: The log

  private func noteDamage() {
    for range in census.damage {
      let place = survey.place(range.lowerBound)
      problems.append(
        JournalProblem(
          place.file, offset: place.offset, position: range.lowerBound,
          "\(range.count) bytes of the log, up to position \(range.upperBound), are damaged or"
            + " missing"))
    }
    for record in census.malformed {
      let place = survey.place(record.position)
      problems.append(
        JournalProblem(
          place.file, offset: place.offset, position: record.position,
          "\(record.problem)"))
    }
  }

  // MARK: Lane files

  private func verify(_ file: JournalSurvey.LaneFile) throws(JournalError) -> [LaneBlock] {
    blocks += file.blocks.count
    var end = 0
    var alive: [LaneBlock] = []
    for block in file.blocks {
      if block.offset < end || block.offset > file.bytes
        || block.size > file.bytes - block.offset || block.first > block.last
      {
        note(block, "the table's entry of the block makes no sense")
        continue
      }
      end = block.offset + block.size
      if census.isProven, let lane = census.lanes[block.lane],
        block.last > lane.messages.movedUpTo
      {
        note(block, "the block has messages above those that moved, as the checkpoint says")
      }
      guard census.isAlive(block) else { continue }
      blocksAlive += 1
      if try verify(block) {
        alive.append(block)
        soundBlocks[file.number, default: []].append(block)
      }
    }
    return alive
  }

  private func verify(_ block: LaneBlock) throws(JournalError) -> Bool {
    guard let lane = census.lanes[block.lane] else { return true }
    let alive = census.aliveInFiles(lane)
    var count = 0
    let problem = try survey.read(block, isWellFormed: RecordForm.isMessage) { message in
      if message.isDurable, alive.contains(message.sequence) { count += 1 }
    }
    guard let problem else {
      inFiles[block.lane, default: 0] += count
      return true
    }
    // Without a checkpoint what has died cannot be told from what is alive, but holes are dead.
    if !census.isProven, try survey.isHole(block) {
      spoiledFiles.insert(block.file)
      return false
    }
    damagedBlocks.append(block)
    let range = "messages \(block.first) to \(block.last) of queue \(lane.queueText)"
    note(block, "\(problem); \(range)")
    return false
  }

  private func note(_ block: LaneBlock, _ text: String) {
    spoiledFiles.insert(block.file)
    problems.append(JournalProblem(Self.laneName(block.file), offset: block.offset, text))
  }

  private func verifyOrder(_ blocks: [LaneBlock]) {
    var last: [UInt32: LaneBlock] = [:]
    for block in blocks.sorted(by: { ($0.lane, $0.first) < ($1.lane, $1.first) }) {
      if let before = last[block.lane], before.last >= block.first {
        note(
          block,
          "the block overlaps the one at offset \(before.offset) of \(Self.laneName(before.file))")
        soundBlocks[block.file]?.removeAll { $0 == block }
        damagedBlocks.append(block)
      } else {
        last[block.lane] = block
      }
    }
  }

  // MARK: Counts

  private func count() {
    var lanes: [UInt32: [JournalCensus.LaneCensus]] = [:]
    for lane in census.lanes.values { lanes[lane.queueID ?? 0, default: []].append(lane) }
    for (id, lanes) in lanes.sorted(by: { $0.key < $1.key }) {
      let names = lanes.min { $0.id < $1.id }!.queueNames
      queues.append(
        QueueCount(
          id: id, vhost: names.vhost, name: names.name,
          inLog: lanes.reduce(0) { $0 + aliveInLog($1).count },
          inLanes: lanes.reduce(0) { $0 + aliveInFiles($1) },
          isStream: lanes.contains { $0.role == .partition }))
    }
  }

  /// How many messages of sound blocks are alive.
  func aliveInFiles(_ lane: JournalCensus.LaneCensus) -> Int {
    lane.role == .partition
      ? segments[lane.id]?.reduce(0) { $0 + $1.recordCount } ?? 0 : inFiles[lane.id] ?? 0
  }

  /// The messages of the log that are alive and in no sound block, in order.
  func aliveInLog(_ lane: JournalCensus.LaneCensus) -> [JournalCensus.Logged] {
    if lane.role == .partition { return recordsInLog(lane) }
    var logged: [JournalCensus.Logged] = []
    if !damagedBlocks.isEmpty || !lostLaneFiles.isEmpty || !problems.isEmpty {
      logged = lane.passedOver.filter { lane.messages.alive.contains($0.sequence) }
    }
    lane.messages.forEachRemaining { entry in
      logged.append(.init(sequence: entry.sequence, position: entry.location.position))
    }
    let ranges = blocksBySequence[lane.id] ?? []
    guard !ranges.isEmpty else { return logged }
    return logged.filter { message in
      !ranges.overlaps(message.sequence)
    }
  }

  /// Sound blocks by their lanes, in order.
  lazy var blocksBySequence: [UInt32: [LaneBlock]] = {
    Dictionary(grouping: soundBlocks.values.joined(), by: \.lane)
      .mapValues { $0.sorted { $0.first < $1.first } }
  }()
}

extension [LaneBlock] {
  /// Whether the sequence stands within one of the blocks, which are in order.
  func overlaps(_ sequence: UInt64) -> Bool {
    let index = countEnding(before: sequence)
    return index < count && self[index].first <= sequence
  }

  /// How many end before `sequence`.
  func countEnding(before sequence: UInt64) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if self[middle].last < sequence { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

extension JournalCensus.LaneCensus {
  /// Of the queue; if its declaration is lost, names that are made of the lane's id.
  var queueNames: (vhost: Name, name: Name) {
    guard let names = queueDeclaration?.names(2) else { return ("/", Name("repaired-\(id)")) }
    return (names[0], names[1])
  }

  var queueText: String {
    let names = queueNames
    return names.vhost == "/" ? "\"\(names.name)\"" : "\"\(names.name)\" in \"\(names.vhost)\""
  }
}
