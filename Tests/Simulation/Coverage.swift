/// What runs have done, to see that they exercise what they are for.
package struct Coverage: Sendable {
  package enum Event: String, CaseIterable, Sendable {
    case turns, restarts, powerLosses, kills, orderlyStops, crashesInOperation, crashesInRecovery
    case tornWrites, lostSectors, lostNames, syncFailures, writeFailures, readFailures
    case otherFailures, fullDiskEpisodes, refusedForSpace, refusedStarts, journalFailures
    case startsAfterFailure, countedDeliveries
    case postponedBatches, blockedPublishers, throttledPublishers
    case publishes, largePublishes, confirms, refusals, returns, deliveries, redeliveries, gets
    case transactions, rollbacks
    case acknowledgements, requeues, recovers, purges, deletions, channelErrors, disconnects
    case pausedForLog, fullOutputs, unreadableMessages
    case commits, checkpoints, segmentsRecycled, blocksDropped, blocksReadBack
    case draftsAppended
    case spills, kilobytesSpilled, laneFilesMerged
    case exclusiveQueues, exclusiveEnds, lockedQueues, autoDeletions, exchangeDeletions, unbinds
    case headersRoutes, exchangeHops, furtherChannels, lowerPriorities, sharedLimits, sharedDrains
    case rots, rottenStarts, rottenReads, damageTold, cancelsForDamage, closesForDamage
    case rests, clockSteps, quietTurns, cascades, deadlines
    case guestPublishes, guestDeliveries, delayedDeliveries, expiredLetters, locksOver
    case messagesRecovered, uncertainMessages, drained
  }

  private var counts = [Int](repeating: 0, count: Event.allCases.count)

  package init() {}

  package subscript(event: Event) -> Int {
    get { counts[event.index] }
    set { counts[event.index] = newValue }
  }

  package static func += (left: inout Coverage, right: Coverage) {
    for index in left.counts.indices { left.counts[index] += right.counts[index] }
  }

  /// Numbers in the order of `Event`, with commas between.
  package var line: String { counts.map(String.init).joined(separator: ",") }

  package init?(line: String) {
    let numbers = line.split(separator: ",").compactMap { Int($0) }
    guard numbers.count == counts.count else { return nil }
    counts = numbers
  }

  /// What was never done.
  package var missing: [Event] { Event.allCases.filter { self[$0] == 0 } }
}

extension Coverage.Event {
  var index: Int {
    // Cases without payload are numbered in the order of their declaration.
    Int(unsafeBitCast(self, to: UInt8.self))
  }
}

/// The counters of one run, shared by all that count.
final class CoverageCounter {
  var counts = Coverage()

  func note(_ event: Coverage.Event, _ count: Int = 1) {
    counts[event] += count
  }
}
