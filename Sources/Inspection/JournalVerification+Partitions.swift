import Base
import Broker
import Journal

/// What was found of a segment of a partition.
struct FoundSegment {
  let partition: UInt32
  /// As the checkpoint has it; without one as the file shows it.
  let segment: PartitionSegment
  /// Its files can stay as they are.
  let isSound: Bool
  /// Offsets of sound batches, without the gaps between.
  let kept: [Range<UInt64>]
  /// The sound batches of one that cannot stay, by the same ranges.
  let runs: [[SegmentScan.Batch]]
  let damage: [Range<Int>]

  var recordCount: Int { kept.reduce(0) { $0 + $1.count } }
  var name: String { PartitionFiles.batches(partition, base: segment.base) }
}

/// Segments of partitions: every batch, the offsets, the index, and the files.
extension JournalVerification {
  /// Segments and batches in them that somebody needs.
  package var segmentCount: Int { segments.values.reduce(0) { $0 + $1.count } }

  func verifyPartitions(_ progress: (String) -> Void) throws(JournalError) {
    let lanes = census.lanes.values.filter { $0.role == .partition }.sorted { $0.id < $1.id }
    for lane in lanes {
      var found: [FoundSegment] = []
      var end = UInt64(0)
      for segment in census.isProven ? lane.segments : unproven(lane) {
        progress(PartitionFiles.batches(lane.id, base: segment.base))
        let next = try census.isProven ? verify(segment, lane) : read(segment, lane, from: end)
        guard !census.isProven || segment.base >= end && segment.base < segment.end else {
          note(next.name, "what the checkpoint says of the segment makes no sense")
          continue
        }
        end = max(end, next.segment.end)
        found.append(next)
      }
      if census.isProven, end > lane.messages.movedUpTo {
        problems.append(
          JournalProblem(
            survey.checkpoint?.name ?? "",
            "partition \(lane.id) has segments up to offset \(end), and \(lane.messages.movedUpTo) records"
              + " that moved"))
      }
      if !found.isEmpty { segments[lane.id] = found }
    }
  }

  private func note(_ file: String, offset: Int? = nil, _ text: String) {
    problems.append(JournalProblem(file, offset: offset, text))
  }

  /// A segment that the checkpoint has.
  private func verify(
    _ segment: PartitionSegment, _ lane: JournalCensus.LaneCensus
  ) throws(JournalError) -> FoundSegment {
    let scan = try SegmentScan(survey, lane.id, segment)
    let name = PartitionFiles.batches(lane.id, base: segment.base)
    let kept = scan.runs.offsets
    let lost = kept.gaps(in: segment.base..<max(segment.base, segment.end))
    if !survey.hasFile(name) {
      note(name, "the segment is missing; \(lost.text) of \(lane.partitionText)")
    } else if scan.damage.isEmpty, !lost.isEmpty {
      note(name, "the segment lacks \(lost.text) of \(lane.partitionText)")
    } else {
      for range in scan.damage {
        note(
          name, offset: range.lowerBound,
          "\(range.count) bytes of batches are damaged or missing; \(lost.text) of \(lane.partitionText)"
        )
      }
    }
    let index = PartitionFiles.index(lane.id, base: segment.base)
    let batchCount = scan.runs.reduce(0) { $0 + $1.count }
    if !survey.hasFile(index) {
      note(index, "the index is missing")
    } else if scan.damage.isEmpty, !scan.isIndexSound || batchCount != segment.batchCount {
      note(index, "the index says something else than the segment")
    }
    let isSound = scan.isSound && lost.isEmpty && batchCount == segment.batchCount
    return FoundSegment(
      partition: lane.id, segment: segment, isSound: isSound, kept: kept,
      runs: isSound ? [] : scan.runs, damage: scan.damage)
  }

  // MARK: Without a checkpoint

  /// All files count, with all that is sound in them.
  private func unproven(_ lane: JournalCensus.LaneCensus) -> [PartitionSegment] {
    survey.partitionFiles.filter { $0.partition == lane.id && $0.bytes != nil }.map {
      PartitionSegment(base: $0.base, end: $0.base, bytes: 0, batchCount: 0, timeMax: .min)
    }
  }

  /// What of it another file has as well, before this offset, is of a round that did not count.
  private func read(
    _ segment: PartitionSegment, _ lane: JournalCensus.LaneCensus, from start: UInt64
  ) throws(JournalError) -> FoundSegment {
    let scan = try SegmentScan(survey, lane.id, base: segment.base)
    let runs = scan.runs.map { $0.filter { $0.first >= start && $0.end > lane.start } }
      .filter { !$0.isEmpty }
    let kept = runs.offsets
    let found = PartitionSegment(
      base: segment.base, end: kept.last?.upperBound ?? segment.base, bytes: 0, batchCount: 0,
      timeMax: .min)
    return FoundSegment(
      partition: lane.id, segment: found, isSound: false, kept: kept, runs: runs, damage: [])
  }

  // MARK: The log

  /// The records of a partition that stand in the log and in no sound batch, in order.
  func recordsInLog(_ lane: JournalCensus.LaneCensus) -> [JournalCensus.Logged] {
    let found = segments[lane.id] ?? []
    var logged = found.allSatisfy(\.isSound) ? [] : lane.passedOver
    lane.messages.forEachRemaining { entry in
      logged.append(.init(sequence: entry.sequence, position: entry.location.position))
    }
    let kept = found.flatMap(\.kept)
    var last = lane.start
    logged.sort { $0.sequence < $1.sequence }
    return logged.filter { record in
      guard record.sequence > last, !kept.has(record.sequence - 1) else { return false }
      last = record.sequence
      return true
    }
  }

  /// All offsets of a partition that are kept.
  func keptOffsets(
    _ lane: JournalCensus.LaneCensus, _ logged: [JournalCensus.Logged]
  ) -> [Range<UInt64>] {
    let kept = (segments[lane.id] ?? []).flatMap(\.kept) + logged.runs.map(\.offsets)
    return kept.sorted { $0.lowerBound < $1.lowerBound }
  }
}

extension [[SegmentScan.Batch]] {
  var offsets: [Range<UInt64>] { map { $0[0].first..<$0[$0.count - 1].end } }
}

extension [Range<UInt64>] {
  /// Whether an offset is in one of these ranges, which are in order.
  func has(_ offset: UInt64) -> Bool {
    let place = indices.partition { self[$0].upperBound <= offset }
    return place < count && self[place].contains(offset)
  }

  /// What of a range is in none of these, which are in order.
  func gaps(in whole: Range<UInt64>) -> [Range<UInt64>] {
    var gaps: [Range<UInt64>] = []
    var next = whole.lowerBound
    for range in self where range.upperBound > next {
      if range.lowerBound > next {
        gaps.append(next..<Swift.min(range.lowerBound, whole.upperBound))
      }
      next = range.upperBound
      if next >= whole.upperBound { break }
    }
    if next < whole.upperBound { gaps.append(next..<whole.upperBound) }
    return gaps
  }

  /// Such as `offsets 5-9, 12`.
  var text: String {
    guard !isEmpty else { return "no offset" }
    return "offsets "
      + map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound - 1)" }
      .joined(separator: ", ")
  }
}

extension [JournalCensus.Logged] {
  /// Those that follow each other without a gap.
  var runs: [(offsets: Range<UInt64>, records: ArraySlice<JournalCensus.Logged>)] {
    var runs: [(offsets: Range<UInt64>, records: ArraySlice<JournalCensus.Logged>)] = []
    var start = 0
    for index in indices {
      guard index + 1 == count || self[index + 1].sequence != self[index].sequence + 1 else {
        continue
      }
      runs.append((self[start].sequence - 1..<self[index].sequence, self[start...index]))
      start = index + 1
    }
    return runs
  }
}

extension JournalCensus.LaneCensus {
  var partitionText: String { "partition \(priority) of \(queueText)" }
}
