import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

extension TestBroker {
  func queue(_ name: Name) -> Queue? { vhost.destinations[name] as? Queue }

  /// The broker does not own its clients; this object does.
  func connect(user: Name = "guest") -> TestClient {
    let client = TestClient(vhost: vhost, user: user)
    atClose.append { client.close() }
    return client
  }

  /// What there is of messages, which are few.
  var counts: MessageCounts {
    var found = MessageCounts()
    broker.count { found = $0 }
    return found
  }

  // MARK: Ends

  /// Turns until no work is underway; returns how many.
  @discardableResult
  func finishChores() -> Int {
    var count = 0
    while broker.hasChores {
      turn()
      count += 1
    }
    return count
  }

  /// A durable turn, and more until no checkpoint is under way: nothing but the next turn will change
  /// a file.
  func quietTurn() {
    turns {
      !journal.isCommitting && !journal.hasUncommitted && journal.pendingCheckpoint == nil
        && !journal.wantsCheckpoint(now: broker.time)
    }
  }

  /// A quiet turn, and more until everything has moved into lane files that is to move, and what it
  /// left behind is given up.
  func spillTurns() {
    turns {
      !journal.isCommitting && !journal.hasUncommitted && !journal.isSpilling
        && journal.spillCutoff(now: broker.time) == nil && journal.pendingCheckpoint == nil
        && !journal.wantsCheckpoint(now: broker.time)
    }
  }

  /// Stops in order and begins again.
  func restarted(settings: Journal.Settings = .quick) throws -> TestBroker {
    close()
    return try TestBroker(in: directory, settings: settings, disk: Self.disk(settings))
  }

  /// Nothing is really synced: what the process wrote survives it.
  private static func disk(_ settings: Journal.Settings) -> any Disk {
    settings.isSynced ? FaultyDisk() : SystemDisk()
  }

  /// Another broker on what a crash would have left behind now. This one lives on.
  func crashed(settings: Journal.Settings = .quick) throws -> TestBroker {
    drainWorkers()
    return try TestBroker(in: directory.copy(), settings: settings, disk: Self.disk(settings))
  }

  // MARK: What is held

  /// Entries that refer to messages, as the journal counts them.
  var referenceCount: Int {
    let all = (0..<journal.blockCapacity).reduce(0) { $0 + journal.blocks[$1].references }
    let own = (journal.pendingSpill?.kept.count ?? 0) + (journal.forgottenBlock == nil ? 0 : 1)
    return all - own
  }

  /// Expects that no message is kept: after a durable turn only the two open blocks are left.
  func expectNothingHeld(sourceLocation: SourceLocation = #_sourceLocation) {
    durableTurn()
    #expect(referenceCount == 0, sourceLocation: sourceLocation)
    let open = [journal.durableTail, journal.transientTail].filter { $0.base != nil }
    let openBytes = open.reduce(0) { $0 + $1.capacity }
    #expect(journal.memoryBytes == openBytes, sourceLocation: sourceLocation)
    let used = (0..<journal.blockCapacity).count { journal.blocks[$0].capacity > 0 }
    #expect(used == open.count, sourceLocation: sourceLocation)
    #expect(
      Set(journal.freeSlots).count == journal.freeSlots.count
        && journal.freeSlots.count
          == journal.blockCapacity - used - (journal.forgottenBlock == nil ? 0 : 1),
      "every block's slot is free once", sourceLocation: sourceLocation)
  }
}
