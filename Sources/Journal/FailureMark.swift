import IO

/// An empty file beside the log, which says that the log failed and that deliveries went on: that it is there
/// is all that counts. `Specs/Journal.md`, "What was delivered", has what a start makes of it.
package enum FailureMark {
  package static let name = "log-failed"

  /// It is there durably when this returns.
  static func make(_ files: SegmentFiles) throws(SystemError) {
    _ = try files.disk.open(files.path(name), .readWrite, creates: true)
    try files.disk.syncDirectory(files.directory)
  }

  static func remove(_ files: SegmentFiles) throws(SystemError) {
    try files.disk.remove(files.path(name))
    try files.disk.syncDirectory(files.directory)
  }
}

extension Journal {
  /// The log is indeterminate from now on, for good. What is delivered from now on it cannot be told: that is
  /// noted beside it, and who waits to deliver is told when it was, or could not be (`poll`).
  func fail(_ reason: String) {
    guard failure == nil else { return }
    failure = reason
    isMarkingFailure = true
    background.markFailure()
  }

  /// The next start will know that the log failed.
  package var isFailureMarked: Bool { background.isFailureMarked == true }

  /// The log has records of all that the last life's failure left open.
  public func failureWasTold() {
    failureToldAt = endPosition
  }

  /// The log is durable up to another position.
  func unmarkFailure() {
    guard let position = failureToldAt, durablePosition >= position else { return }
    failureToldAt = nil
    background.unmarkFailure()
  }
}

extension Background {
  func markFailure() {
    submit { [self] in
      do throws(SystemError) {
        try FailureMark.make(files)
        noteMarked(true)
      } catch {
        note(
          "it could not be noted that the journal failed: \(error); what is delivered from now on may come"
            + " again after the restart without being marked as redelivered")
        noteMarked(false)
      }
    }
  }

  func unmarkFailure() {
    submit { [self] in
      do throws(SystemError) {
        try FailureMark.remove(files)
      } catch {
        note(
          "\(files.path(FailureMark.name)) could not be removed: \(error); the next start marks all"
            + " messages as redelivered again")
      }
    }
  }
}
