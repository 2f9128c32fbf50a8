import Base
import Testing

/// The simulator itself: a sound broker keeps its promises, and each known defect is found.
@Suite(.serialized) struct SimulationTests {
  @Test func aSoundBrokerKeepsItsPromises() {
    let result = SimulateCommand.run(["--seeds", "25", "--steps", "60"])
    #expect(result.status == 0, "\(result.lines.suffix(60).joined(separator: "\n"))")
  }

  @Test func aSeedAlwaysGivesTheSameRun() {
    let words = ["--seed", "3", "--steps", "30", "--trace"]
    let first = SimulateCommand.run(words).lines.dropLast()
    #expect(first.count > 100)
    #expect(first.elementsEqual(SimulateCommand.run(words).lines.dropLast()))
  }

  @Test(.enabled(if: Sabotage.isPossible), arguments: Sabotage.allCases)
  func findsADefect(_ defect: Sabotage) {
    let first = Self.firstSeed[defect] ?? 1
    let result = SimulateCommand.run([
      "--variant", defect.rawValue, "--quick", "--first-seed", "\(first)", "--seeds", "60",
      "--steps", "100",
    ])
    #expect(result.status == 1, "\(defect) was not found")
  }

  /// Where the search for a defect begins, so that it ends soon. When the simulator changes, the search
  /// goes on from there; `Tools/simulate --variant NAME --seeds 3000` tells where they are now.
  private static let firstSeed: [Sabotage: Int] = [
    .confirmsBeforeSync: 201, .confirmsOneTooMany: 201, .goesOnAfterFailedWrite: 203,
    .losesPostponedBatch: 207, .freesCommittingBlock: 5, .forgetsDirectorySync: 209,
    .opensUnsyncedSegment: 944, .misnamesFirstRecord: 126, .checkpointsUnsyncedLog: 38,
    .losesDestinationAtReplay: 2, .deliversBeforeLog: 201, .requeuesOutOfOrder: 202,
    .keepsStaleRoutes: 203, .miscountsReady: 201, .returnsSpaceEarly: 1152,
    .makesHolesEarly: 1947, .removesFileBeforeRecord: 1208, .leavesOutstandingBehind: 202,
    .marksSegmentEarly: 201, .keepsStaleMark: 201,
    .keepsStaleLocation: 7, .opensRunAtItsBeginning: 207, .forgetsMovedRedelivered: 202,
  ]
}
