import Base
import Broker
import IO
import Journal

/// What SIGUSR1 asks for: the broker's figures, in the log.
extension Loop {
  func logStatus() {
    broker.count { [weak self] in self?.logStatus($0) }
  }

  private func logStatus(_ counts: MessageCounts) {
    log.info(
      "status: connections=\(connectionCount) queues=\(counts.queues) ready=\(counts.ready)"
        + " unacknowledged=\(counts.unacknowledged) \(lockStatus)"
        + " \(memoryStatus) blocked=\(broker.alarm ?? "no") \(turnTimes) \(ownersStatus())"
        + " \(JournalStatus(broker.journal))")
  }

  /// What was not acknowledged in time, since the start.
  private var lockStatus: String {
    let counts = broker.lockCounts
    return "deliveries-timed-out=\(counts.deliveries) consumers-timed-out=\(counts.consumers)"
      + " late-answers=\(counts.lateAnswers)"
  }

  /// What memory goes to, in bytes.
  private var memoryStatus: String {
    _ = broker.memoryBytesPinned()
    let account = broker.account
    let kinds = MemoryAccount.Kind.allCases.map { " memory-\($0)=\(account[$0])" }
    return "memory=\(account.total) memory-limit=\(account.limitBytes)" + kinds.joined()
  }
}

/// The journal's figures, as the log has them; bytes since the start.
struct JournalStatus: CustomStringConvertible {
  private let journal: Journal

  init(_ journal: Journal) {
    self.journal = journal
  }

  var description: String {
    let statistics = journal.statistics
    let amplification = (statistics.writeAmplification * 1000).rounded() / 1000
    return "journal-commits=\(statistics.commits) journal-bytes=\(statistics.bytesCommitted)"
      + " moved-bytes=\(statistics.bytesSpilled) write-amplification=\(amplification)"
      + " segments=\(journal.segmentCount) lane-files=\(journal.laneFileCount)"
      + " lane-bytes=\(journal.laneBytes) blocks-read-back=\(statistics.blocksReadBack)"
      + " checkpoints=\(statistics.checkpoints)"
  }
}
