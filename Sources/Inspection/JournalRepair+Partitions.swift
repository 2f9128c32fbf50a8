import Base
import Broker
import Journal

/// Partitions of streams: segments are kept as they are; of damaged ones the sound batches. No offset is given
/// to another record.
extension JournalRepair {
  /// Offsets whose records are neither in a sound batch nor in the log.
  func lostOffsets(
    _ lane: JournalCensus.LaneCensus, _ logged: [JournalCensus.Logged]
  ) -> [Range<UInt64>] {
    guard lane.role == .partition else { return [] }
    let kept = verification.keptOffsets(lane, logged)
    // Without a checkpoint nothing says what was given up before.
    let start = census.isProven ? lane.start : max(lane.start, kept.first?.lowerBound ?? 0)
    let end = max(start, lane.lastLogged, lane.messages.nextSequence - 1)
    return kept.gaps(in: start..<end)
  }

  /// Puts the partition's segments, and its records of the log, into the new journal; returns its state.
  func keepPartition(
    _ outcome: Outcome, _ rebuild: JournalRebuild
  ) throws(JournalError) -> [RawRecord] {
    let lane = outcome.lane
    var segments: [PartitionSegment] = []
    for found in verification.segments[lane.id] ?? [] {
      if found.isSound {
        try rebuild.link(found)
        segments.append(found.segment)
      } else {
        for run in found.runs { segments.append(try rebuild.copy(run, of: found)) }
      }
    }
    let declared = StreamDeclaration(outcome.declaration.queueArguments)
    for run in outcome.logged.runs {
      guard let declared else { invariantFailed("a partition is of no stream") }
      segments += try rebuild.add(
        lane.id, from: run.offsets.lowerBound, run.records.map(\.position), declared)
    }
    segments.sort { $0.base < $1.base }
    let next = max(
      lane.messages.nextSequence, lane.lastLogged + 1, (segments.last?.end ?? 0) + 1)
    // What stood at the log's end may have had the offsets that come next.
    let sequence = next + (outcome.isLossUnknown ? lostRecordsMax : 0)
    return [
      LaneStateRecord.raw(
        lane: lane.id, nextSequence: sequence, deliveredUpTo: 0, movedUpTo: sequence - 1),
      PartitionStateRecord.raw(
        lane: lane.id, start: max(lane.start, segments.first?.base ?? sequence - 1),
        segments: segments.map(\.state)),
    ]
  }

  /// As many messages can have stood in what is damaged of the log.
  private var lostRecordsMax: UInt64 {
    let bytes = census.damage.reduce(0) { $0 + $1.count }
    return UInt64(bytes / MessageRecord.bytesMin) + 1
  }

  /// Damaged places of segments, as far as there are bytes.
  var damagedParts: [(segment: FoundSegment, range: Range<Int>)] {
    verification.segments.sorted { $0.key < $1.key }.flatMap(\.value).flatMap { found in
      let bytes = survey.partitionFiles.first {
        $0.partition == found.partition && $0.base == found.segment.base
      }?.bytes
      return found.damage.compactMap { range in
        let there = range.clamped(to: 0..<(bytes ?? 0))
        return there.isEmpty ? nil : (found, there)
      }
    }
  }

  static func name(_ found: FoundSegment, _ range: Range<Int>) -> String {
    let file = found.name.dropFirst(PartitionFiles.directory.count + 1).dropLast(".batches".count)
    return "\(file)-\(String(range.lowerBound, radix: 16)).damaged"
  }
}

extension JournalCensus.LaneCensus {
  /// Among the lanes of its queue.
  var place: UInt32 { role == .partition ? priority : id }
}

extension MessageRecord {
  /// A message with nothing in it, for one lane.
  fileprivate static let bytesMin = 48
}
