import Base
import IO
import Journal

/// Reads a log from its oldest segment to its end, past all damage.
package final class LogSurvey {
  package enum Event {
    case record(RecordView, epoch: UInt64)
    /// Bytes of the log that hold no valid record.
    case damage(Range<Int>)
  }

  package private(set) var start = 0
  package private(set) var end = 0
  package private(set) var records = 0
  package private(set) var epoch: UInt64 = 0
  /// The broker stopped in order; otherwise the end is where a crash cut it.
  package private(set) var isClean = false
  /// Called with the position now and then.
  package var progress: ((Int) -> Void)?

  private let survey: JournalSurvey
  private let isPlausible: (RecordView) -> Bool
  private static let progressRecords = 1 << 14

  /// `isPlausible` as in `LogReader.skipDamage`.
  package init(_ survey: JournalSurvey, isPlausible: @escaping (RecordView) -> Bool) {
    self.survey = survey
    self.isPlausible = isPlausible
  }

  package func read(_ body: (Event) -> Void) throws(JournalError) {
    guard let first = survey.segments.first else { return expectAll(behind: 0, body) }
    let named = first.header?.firstRecord ?? first.firstPosition
    let reader = LogReader(
      files: survey.lenientFiles, position: min(named, survey.logEnd),
      epoch: first.header?.epoch ?? 0, end: survey.logEnd, holes: survey.holes)
    if survey.isCheckpointProven, let wanted = survey.checkpoint?.replayFrom,
      first.firstPosition > wanted
    {
      body(.damage(wanted..<reader.position))
    }
    start = reader.position
    if first.header == nil { try begin(reader, body) }
    while true {
      try readRun(reader, body)
      let damaged = reader.brokenGroup ?? reader.position
      guard try reader.skipDamage(isPlausible) else { break }
      try reader.skipRestOfGroup()
      body(.damage(damaged..<reader.position))
    }
    end = reader.position
    epoch = reader.epoch
    isClean = reader.isClean
    if let range = unprovable { body(.damage(range)) }
    expectAll(behind: end, body)
  }

  /// Nothing behind can prove what stood in a last segment that is cut, or missing, or without a head
  /// and a record that could be found.
  private var unprovable: Range<Int>? {
    guard let last = survey.segments.last, end < survey.logEnd else { return nil }
    if survey.isTailMissing { return end..<survey.logEnd }
    guard survey.isCut(last) || last.header == nil && end <= last.firstPosition else { return nil }
    return max(end, last.firstPosition)..<survey.logEnd
  }

  /// The log must reach its checkpoint.
  private func expectAll(behind end: Int, _ body: (Event) -> Void) {
    guard let checkpoint = survey.checkpoint else { return }
    let begin = max(end, checkpoint.replayFrom)
    if begin < checkpoint.position { body(.damage(begin..<checkpoint.position)) }
  }

  /// Finds where records begin and of which epoch they are when the first header does not say it.
  private func begin(_ reader: LogReader, _ body: (Event) -> Void) throws(JournalError) {
    let limit = survey.segments.lazy.compactMap(\.header).first?.epoch ?? Self.epochGuessMax
    guard try reader.findEpoch(upTo: limit) else { return }
    let from = reader.position
    guard try reader.seekFirst(isPlausible), reader.position > from else { return }
    body(.damage(from..<reader.position))
  }

  private static let epochGuessMax: UInt64 = 1 << 16

  /// Hands over valid records up to the next place where there is none.
  private func readRun(_ reader: LogReader, _ body: (Event) -> Void) throws(JournalError) {
    do {
      while let view = try reader.next() {
        records += 1
        body(.record(view, epoch: reader.epoch))
        if records % Self.progressRecords == 0 { progress?(reader.position) }
      }
    } catch {
      guard case .damaged = error else { throw error }
    }
  }
}
