import Inspection
import Journal

/// Prints what a journal holds.
final class JournalListing {
  struct Selection {
    let limit: Int
    let from: Int?
    let to: Int?
    let kinds: Set<String>
    /// A name or a number.
    let queue: String?
    let showsMessages: Bool
    let bodyBytes: Int
    let isSummary: Bool

    var isOfLog: Bool { limit > 0 || from != nil || to != nil }
  }

  private let survey: JournalSurvey
  private let selection: Selection
  /// The queues that are meant; they become known by their declarations.
  private var queues: Set<UInt32> = []
  private var lanes: Set<UInt32> = []
  private var tail: [String] = []
  private var countByKind: [UInt8: Int] = [:]
  /// Records that cannot be understood.
  private var unknownCount = 0

  init(_ survey: JournalSurvey, _ selection: Selection) {
    self.survey = survey
    self.selection = selection
    if let queue = selection.queue, let number = UInt32(queue) { queues.insert(number) }
  }

  func show() throws(JournalError) -> ExitCode {
    for problem in survey.problems { Console.show("damaged  \(problem)\n") }
    showCheckpoint()
    if !selection.isSummary, !selection.isOfLog {
      try showLaneFiles()
      try showSegments()
    }
    let (log, damage) = try showLog()
    showSummary(log)
    return survey.problems.isEmpty && damage + unknownCount == 0 ? .success : .damaged
  }

  // MARK: The checkpoint

  private func showCheckpoint() {
    guard let checkpoint = survey.checkpoint else { return }
    let isShown = !selection.isSummary && !selection.isOfLog
    if isShown, selection.queue == nil, selection.kinds.isEmpty {
      Console.show(
        "checkpoint \(checkpoint.name): what was known at \(checkpoint.position); the log is read from"
          + " \(checkpoint.replayFrom)\n")
    }
    survey.forEachCheckpointRecord { record in
      let description = RecordDescription(record)
      note(description)
      guard isShown, isSelected(description, record.kind) else { return }
      Console.show("checkpoint  \(description.text)\n")
    }
  }

  // MARK: Lane files

  private func showLaneFiles() throws(JournalError) {
    guard selection.kinds.isEmpty || selection.kinds.contains("message") else { return }
    for number in survey.missingLaneFiles where selection.queue == nil {
      Console.show("lane file \(number) is not there\n")
    }
    for file in survey.laneFiles {
      if selection.queue == nil {
        Console.show(
          "\(file.name)  \(HumanWords.count(file.bytes, "byte")),"
            + " \(HumanWords.count(file.blocks.count, "block"))\n")
      }
      for block in file.blocks where selection.queue == nil || lanes.contains(block.lane) {
        Console.show(
          "\(file.name)+\(block.offset)  \(block.size) B  lane \(block.lane),"
            + " \(HumanWords.count(block.count, "message")), \(block.durableCount) durable,"
            + " \(block.first)-\(block.last), \(block.durableBytes) B of bodies\(Self.expiry(block))\n"
        )
        if selection.showsMessages { try showMessages(block) }
      }
    }
  }

  private static func expiry(_ block: LaneBlock) -> String {
    block.earliestExpiry == LaneBlock.neverExpires
      ? "" : ", the first expires at \(block.earliestExpiry)"
  }

  private func showMessages(_ block: LaneBlock) throws(JournalError) {
    let problem = try survey.read(block, isWellFormed: RecordForm.isMessage) { message in
      Console.show(
        "  \(block.lane)#\(message.sequence)\(message.isDurable ? "" : " transient")  "
          + self.text(RecordDescription(message.record)) + "\n")
    }
    // A block of which everything was consumed may be gone.
    if let problem { Console.show("  \(problem)\n") }
  }

  // MARK: Segments of streams

  private func showSegments() throws(JournalError) {
    guard selection.kinds.isEmpty || selection.kinds.contains("message") else { return }
    for (partition, segment) in survey.partitionSegments
    where selection.queue == nil || lanes.contains(partition) {
      let name = PartitionFiles.batches(partition, base: segment.base)
      let file = survey.partitionFiles.first { $0.name == name }
      let absence = file?.bytes == nil ? ", the file is missing" : ""
      let words = "\(segment.bytes) B  partition \(partition), \(segment.batchCount) batches"
      Console.show(
        "\(name)  \(words), offsets \(segment.base)-\(segment.end - 1)\(absence)\n")
      guard selection.showsMessages else { continue }
      let damage = try survey.readSegment(partition, segment) { position, bytes, first, last in
        Console.show("  \(name)+\(position)  \(bytes) B  offsets \(first)-\(last)\n")
      }
      for range in damage {
        Console.show("  \(name)+\(range.lowerBound)  damaged: \(range.count) bytes\n")
      }
    }
  }

  // MARK: The log

  private func showLog() throws(JournalError) -> (LogSurvey, Int) {
    let log = LogSurvey(survey, isPlausible: RecordForm.isPlausible)
    var damage = 0
    try log.read { event in
      switch event {
      case .damage(let range):
        damage += 1
        show(range.lowerBound, "damaged: \(range.count) bytes, up to \(range.upperBound)")
      case .record(let record, _):
        countByKind[record.kind, default: 0] += 1
        let description = RecordDescription(record)
        note(description)
        guard isSelected(description, record.kind) else { return }
        show(record.position, "\(record.size) B  \(text(description))")
      }
    }
    for text in tail.suffix(selection.limit) { Console.show(text) }
    return (log, damage)
  }

  private func show(_ position: Int, _ words: String) {
    guard !selection.isSummary, position >= selection.from ?? 0, position < selection.to ?? .max
    else { return }
    let place = survey.place(position)
    let text = "\(position)  \(place.file)+\(place.offset)  \(words)\n"
    guard selection.limit > 0 else { return Console.show(text) }
    tail.append(text)
    if tail.count > 2 * selection.limit { tail.removeFirst(tail.count - selection.limit) }
  }

  // MARK: What is meant

  private func text(_ record: RecordDescription) -> String {
    record.text + record.body(bytesMax: selection.bodyBytes)
  }

  private func note(_ record: RecordDescription) {
    if record.problem != nil { unknownCount += 1 }
    if let name = selection.queue, let id = record.declaredQueue(named: name) { queues.insert(id) }
    if let (lane, queue) = record.declaredLane, queues.contains(queue) { lanes.insert(lane) }
  }

  private func isSelected(_ record: RecordDescription, _ kind: UInt8) -> Bool {
    // What nobody understands may be anything.
    if record.problem != nil { return true }
    if !selection.kinds.isEmpty, !selection.kinds.contains(RecordDescription.kindName(kind)) {
      return false
    }
    return selection.queue == nil || record.concerns(oneOf: queues, lanes: lanes)
  }

  // MARK: The summary

  private func showSummary(_ log: LogSurvey) {
    let kinds = countByKind.sorted { $0.key < $1.key }
      .map { "\(RecordDescription.kindName($0.key)) \($0.value)" }.joined(separator: ", ")
    let blocks = survey.laneFiles.flatMap(\.blocks)
    let segments = survey.partitionSegments
    let end =
      log.isClean ? "stopped in order" : "not stopped in order, or still open"
    let checkpoint = survey.checkpoint.map {
      "at \($0.position), the log is needed from \($0.replayFrom)"
    }
    Console.show(
      """
      segments    \(survey.segments.count) of \(survey.segmentBytes >> 20) MiB, \
      \(survey.spares.count) spare
      checkpoint  \(checkpoint ?? "none")
      lane files  \(survey.laneFiles.count), \(blocks.count) blocks, \
      \(blocks.reduce(0) { $0 + $1.count }) messages, alive or not
      streams     \(segments.count) segments, \
      \(segments.reduce(0) { $0 + Int($1.segment.end - $1.segment.base) }) records
      records     \(log.records)\(kinds.isEmpty ? "" : " (\(kinds))")
      log         \(log.end - log.start) bytes, from \(log.start) to \(log.end), \
      epoch \(log.epoch)
      end         \(end)

      """)
    if survey.isAfterFailure {
      Console.show("failed      yes; the broker will mark all messages as redelivered\n")
    }
    if !survey.leftovers.isEmpty {
      Console.show("leftovers   \(survey.leftovers.joined(separator: " "))\n")
    }
    if !survey.strangers.isEmpty {
      Console.show("not ours    \(survey.strangers.joined(separator: " "))\n")
    }
  }
}
