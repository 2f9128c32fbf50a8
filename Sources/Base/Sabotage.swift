import Glibc

/// Defects that can be switched on to see that the simulator finds them. They exist only where
/// `SABOTAGE` is defined, which is in debug builds; elsewhere every question is answered "no" by the
/// compiler. The simulator names one as an argument; a process of tests takes it from
/// `MARTLET_TEST_DEFECT`.
public enum Sabotage: String, CaseIterable, Sendable {
  // Commits and confirms.
  case confirmsBeforeSync, confirmsOneTooMany, goesOnAfterFailedWrite, losesPostponedBatch
  case freesCommittingBlock, reusesLentMemory, losesBodyBeginning
  // Files.
  case forgetsDirectorySync, opensUnsyncedSegment, misnamesFirstRecord, usesUnsyncedCheckpoint
  case checkpointsUnsyncedLog
  case recyclesLiveSegment, marksSegmentEarly, keepsStaleMark, sharesFirstBatch
  // Recovery.
  case skipsSettlementAtReplay, forgetsDeliveredAtReplay, losesDestinationAtReplay
  case reusesLaneIDs
  // Groups.
  case appliesOpenGroup, endsGroupEarly, forgetsGroup
  // Transactions.
  case commitsInParts, settlesBehindCommit
  // Values by which repeated messages are known.
  case forgetsRememberedAtReplay, forgetsRememberedInCheckpoint
  // Queues.
  case dropsSettlement, deliversBeforeLog, forgetsRedelivered, requeuesOutOfOrder
  case acknowledgesNeighbour, keepsStaleRoutes, miscountsReady
  // Queues that go by themselves, and who may use them.
  case keepsExclusiveQueue, keepsAutoDeleteQueue, revivesAutoDeleteQueue, opensLockedQueue
  case revivesStreamGroup
  // Whose turn it is.
  case servesLowestPriorityFirst, exceedsSharedPrefetch, countsGotMessages, namesWrongConsumer
  case losesColdTurn, servesLowestLaneFirst, losesDeath, delaysTwice
  // Messages that wait for their time.
  case deliversDelayedEarly, leavesDelayedWaiting, losesDelayedAtRecovery, movesOverdueOutOfOrder
  // Times, priorities, lengths, locks, and other settings of queues and exchanges.
  case expiresEarly, deliversExpired, forgetsPriorityAtRecovery
  case dropsOneTooMany, exceedsLength
  case forgetsLengthAtRecovery, endsLockEarly
  case movesKeys, servesStandby
  // What was delivered, and how often.
  case forgetsDeliveryCounts, deliversOnceTooOften, leavesCountsOutOfCheckpoint, forgetsLogFailure
  // Bindings.
  case forgetsHeadersBinding, forgetsExchangeBinding, looksAtOneHeader
  // Damage.
  case skipsBlockChecksum, takesDamageForTornTail
  // Lane files.
  case listsUnsyncedLaneFile, returnsSpaceEarly, makesHolesEarly
  case removesFileBeforeRecord, forgetsRemovalRecord, removesMergedFileEarly
  // Moving messages.
  case forgetsMovedUpTo, recordsMovedUpToTooHigh, leavesOutstandingBehind, keepsStaleLocation
  case missesWhatMoves, replaysFromSnapshotsEnd, forgetsChangesDuringSnapshot
  case forgetsExceptions, opensRunAtItsBeginning, skipsMovedSettlementAtReplay,
    forgetsMovedRedelivered, countsWholeBlocksAtReplay

  // The loop.
  case missesRoom, forgetsPaused

  #if SABOTAGE
    /// The one that is switched on. It is set at most once, before anything that asks is started.
    nonisolated(unsafe) public static var active: Sabotage? = {
      guard let name = getenv("MARTLET_TEST_DEFECT") else { return nil }
      guard let defect = Sabotage(rawValue: String(cString: name)) else {
        invariantFailed("MARTLET_TEST_DEFECT names no defect")
      }
      return defect
    }()
  #endif

  /// Defects can be switched on in this build.
  public static var isPossible: Bool {
    #if SABOTAGE
      true
    #else
      false
    #endif
  }

  @inlinable
  @inline(__always)
  public static func `is`(_ defect: Sabotage) -> Bool {
    #if SABOTAGE
      active == defect
    #else
      false
    #endif
  }
}
