import Base
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// What `verify` says of journals that nothing happened to but use and crashes.
@Suite struct JournalVerificationTests {
  @Test(arguments: Seeds.all)
  func whatACrashLeavesIsSoundAndCountedAsRecoveryCounts(seed: UInt64) throws {
    for settings in [Journal.Settings.quick, .spilling] {
      let run = try BrokerModelRun(
        seed: seed, broker: TestBroker(settings: settings), settings: settings)
      for round in 0..<6 {
        for _ in 0..<60 { try run.doStep() }
        run.broker.drainWorkers()
        let copy = try run.broker.directory.copy()
        let verification = try JournalVerification(directory: copy.path)
        #expect(verification.problems == [], "seed \(seed), round \(round)")
        let broker = try TestBroker(in: copy, settings: settings)
        let counts = verification.queues.reduce(0) { $0 + $1.count }
        #expect(counts == broker.recoveredCount, "seed \(seed), round \(round)")
        for queue in verification.queues {
          #expect(
            queue.count == broker.queue(queue.name)?.messageCount, "seed \(seed), round \(round)")
        }
        try run.restart(inOrder: round.isMultiple(of: 2))
      }
    }
  }

  /// A journal without damage that is repaired all the same holds what it held.
  @Test(arguments: Seeds.all)
  func aJournalWrittenAnewHoldsTheSame(seed: UInt64) throws {
    let run = try BrokerModelRun(
      seed: seed, broker: TestBroker(settings: .spilling), settings: .spilling)
    for round in 0..<4 {
      for _ in 0..<100 { try run.doStep() }
      run.broker.durableTurn()
      run.broker.drainWorkers()
      let copy = try run.broker.directory.copy()
      let aside = try TemporaryDirectory()
      try JournalRepair(JournalVerification(directory: copy.path))
        .perform(in: aside.path + "/repair", now: 1)
      #expect(try JournalVerification(directory: copy.path).problems == [], "seed \(seed)")
      try run.expectContents(
        TestBroker(in: copy, settings: .spilling), run.model.afterCrash())
      try run.restart(inOrder: round.isMultiple(of: 2))
    }
  }

  /// `verify` names what a start refuses, and both pass over what says of itself that it may be.
  @Test(arguments: [(UInt8(15), false), (99, false), (127, false), (200, true)])
  func verifySaysTheSameAsTheStart(kind: UInt8, isPassedOver: Bool) throws {
    let broker = try TestBroker()
    broker.durableTurn()
    let position = broker.journal.endPosition
    broker.turn { RawRecord(kind: kind, payload: []).append(to: broker.journal) }
    broker.durableTurn()
    let verification = try JournalVerification(directory: broker.directory.path)
    let problem = verification.problems.first { $0.position == position }
    #expect(
      problem?.text
        == (isPassedOver ? nil : "a record of kind \(kind), which only a newer version knows"))
    if isPassedOver {
      _ = try broker.restarted()
    } else {
      #expect(throws: JournalError.unknown("a record of kind \(kind)", position: position)) {
        _ = try broker.restarted()
      }
    }
  }
}
