import Base
import Testing

/// The simulator itself: a sound broker keeps its promises, and each known defect is found.
@Suite(.serialized) struct SimulationTests {
  @Test func aSoundBrokerKeepsItsPromises() {
    let result = ChildProcess.simulate(["--seeds", "25", "--steps", "60"])
    #expect(result.status == 0, "\(result.lines.suffix(60).joined(separator: "\n"))")
  }

  @Test func aSeedAlwaysGivesTheSameRun() {
    let words = ["--seed", "3", "--steps", "30", "--trace"]
    let first = ChildProcess.simulate(words).lines.dropLast()
    #expect(first.count > 100)
    #expect(first.elementsEqual(ChildProcess.simulate(words).lines.dropLast()))
  }

  @Test(
    .enabled(if: Sabotage.isPossible),
    arguments: Sabotage.allCases.filter { unitTest[$0] == nil })
  func findsADefect(_ defect: Sabotage) {
    let first = Self.firstSeed[defect] ?? 1
    let result = ChildProcess.simulate([
      "--variant", defect.rawValue, "--quick", "--first-seed", "\(first)", "--seeds", "300",
      "--steps", "100", "--guests", Self.guest[defect] ?? "none",
    ])
    #expect(result.status == 1, "\(defect) was not found")
  }

  @Test(.enabled(if: Sabotage.isPossible), arguments: unitTest.sorted { $0.value < $1.value })
  func aUnitTestFindsADefect(_ defect: Sabotage, _ test: String) {
    let lines = ChildProcess.test(test, with: defect).lines
    #expect(
      lines.contains { $0.contains("\(test)(") && $0.contains(" failed after ") },
      "\(defect) was not found by \(test):\n\(lines.suffix(20).joined(separator: "\n"))")
  }

  /// Where the search for a defect begins, so that it ends soon. When the simulator changes, the search
  /// goes on from there; `Tools/simulate --variant NAME --seeds 3000` tells where they are now.
  private static let firstSeed: [Sabotage: Int] = [
    .checkpointsUnsyncedLog: 201, .skipsBlockChecksum: 201, .forgetsRemovalRecord: 201,
    .removesMergedFileEarly: 601, .forgetsMovedUpTo: 201, .recordsMovedUpToTooHigh: 201,
    .leavesOutstandingBehind: 201, .forgetsMovedRedelivered: 201, .missesRoom: 201,
    .keepsStaleMark: 31,
  ]

  /// Defects of what guests use, by the guest that finds them; others are looked for without guests.
  private static let guest: [Sabotage: String] = [
    .deliversDelayedEarly: "delays", .leavesDelayedWaiting: "delays",
    .losesDelayedAtRecovery: "delays", .movesOverdueOutOfOrder: "delays", .delaysTwice: "delays",
    .expiresEarly: "expiry", .deliversExpired: "expiry", .losesDeath: "expiry",
    .forgetsPriorityAtRecovery: "priorities", .servesLowestLaneFirst: "priorities",
    .endsLockEarly: "locks", .movesKeys: "balance",
    .servesStandby: "single",
  ]

  /// One seed in a thousand finds them, and a unit test finds them each time.
  private static let unitTest: [Sabotage: String] = [
    .countsWholeBlocksAtReplay: "bytesAreExactRightAfterACrash",
    .deliversOnceTooOften: "withoutAPlaceForDeadLettersItIsGone",
    .commitsInParts: "aCommitIsWholeWhereverTheLogEnds",
    .settlesBehindCommit: "aCommitIsWholeWhereverTheLogEnds",
    .forgetsChangesDuringSnapshot: "whatChangesMeanwhileIsThereAfterACrash",
    .dropsOneTooMany: "whatIsNotAcknowledgedDoesNotCount",
    .exceedsLength: "aRefusedPublishIsNeverConfirmedAlone",
    .forgetsLengthAtRecovery: "aRestartKnowsLengthAndBytes",
    .forgetsExceptions: "messagesThatLeftFromTheMiddleOfABlockStayAway",
    .forgetsDeliveryCounts: "countsSurviveACrash",
    .forgetsLogFailure: "theNoteGoesWhenTheLogKnows",
    .leavesCountsOutOfCheckpoint: "countsOfWhatMovedAreInTheCheckpoint",
    .forgetsRememberedAtReplay: "whatWasSeenIsKnownAfterARestart",
    .forgetsRememberedInCheckpoint: "whatWasSeenIsKnownWhenTheLogHasGoneOn",
    .makesHolesEarly: "eachSealWaitsForItsOwnPosition",
    .misnamesFirstRecord: "whatStandsBehindALargeRecordIsFoundFromItsSegmentOn",
    .missesWhatMoves: "whatMovesMeanwhileIsThereOnceAfterACrash",
    .removesFileBeforeRecord: "aFileStaysUntilTheLogSaysThatItIsGone",
    .replaysFromSnapshotsEnd: "aCheckpointNeedsTheLogFromItsBeginningOn",
    .returnsSpaceEarly: "aFileStaysUntilTheLogSaysThatNobodyNeedsIt",
    .opensUnsyncedSegment: "aSegmentIsNotUsedBeforeItsNameIsDurable",
    .revivesStreamGroup: "aGroupThatIsDeletedStaysAway",
    .sharesFirstBatch: "aLifeThatLeftRecordsLeftItsEpoch",
  ]
}
