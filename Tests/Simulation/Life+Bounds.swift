import Broker
import Journal

/// What a broker may take while messages wait, whatever has happened before.
extension Life {
  private static let restTurnsMax = 600
  /// So many where a turn gives checkpoints and rounds a few steps only.
  static let slowRestTurnsMax = 20_000
  private static let blockBytes = 256 << 10
  /// Besides what messages need: the log's open block, the transient one, the one for what is
  /// forgotten, and one that is being read.
  private static let blocksBesides = 4
  private static let sparesMax = 4

  /// Clients and disks do nothing for a while: rounds, checkpoints and whatever else is underway come
  /// to their end, and what the broker then takes is bounded by what waits.
  func rest() throws(Interruption) {
    world.coverage.note(.rests)
    var excess: String?
    var isBusy = true
    // Guests that keep what they get are offered it again and again, by which the time hardly passes.
    let isLong = world.scenario.isSlow || !world.guests.isEmpty
    for _ in 0..<(isLong ? Self.slowRestTurnsMax : Self.restTurnsMax) {
      try turnAlone()
      guard journal.failure == nil else { return }
      guard isIdle, !journal.isSpilling else { continue }
      isBusy = false
      excess = tooMuch()
      if excess == nil { return }
    }
    if isBusy { excess = "rounds and commits do not end" }
    throw .broken(
      BrokenPromise(
        "what waits bounds what the broker takes", "\(excess ?? ""); \(world.disk.listing)"))
  }

  private func tooMuch() -> String? {
    let alive = aliveMessages()
    if journal.blockCount > alive.count + Self.blocksBesides {
      return "\(journal.blockCount) blocks for \(alive.count) messages"
    }
    // Whatever time it is, what was due has been done.
    if journal.spillCutoff(now: .max) != nil {
      return "a round of moving messages is due and does not come"
    }
    if !world.oracle.isRotten, journal.wantsCheckpoint(now: .max) {
      return "a checkpoint is due and does not come"
    }
    let logMax = world.scenario.settings.windowBytes / 4 * 5 + largeBytes
    if journal.aliveLogBytes > logMax {
      return "\(journal.aliveLogBytes) bytes of log are kept instead of \(logMax)"
    }
    if journal.listedBlocks > 4 * journal.blockSlots {
      return "lists of \(journal.listedBlocks) blocks, and \(journal.blockSlots) can be there"
    }
    let laneMax = alive.bytes + alive.count * Self.blockBytes
    if journal.laneBytes > laneMax {
      return "\(journal.laneBytes) bytes of lanes for \(alive.bytes) bytes of messages"
    }
    let memoryMax = memoryMax(alive.transientCount)
    if journal.memoryBytes > memoryMax {
      return "\(journal.memoryBytes) bytes of memory instead of \(memoryMax)"
    }
    // What a crash has left goes with the next checkpoint.
    let diskMax = diskMax(alive.count)
    if journal.statistics.checkpoints > 0, world.disk.usedBytes > diskMax {
      return "\(world.disk.usedBytes) bytes of journal instead of \(diskMax)"
    }
    return nil
  }

  /// Messages that somebody waits for, those of deleted queues that a client still has among them.
  private func aliveMessages() -> (count: Int, transientCount: Int, bytes: Int) {
    var copies = world.scenario.topology.queues.flatMap { world.oracle.queue($0).alive }
    for channel in connections.lazy.flatMap(\.model.channels.values) {
      copies += channel.deliveries.map(\.copy).filter { $0.place == .gone }
    }
    let parcels = world.guests.alive
    return (
      copies.count + parcels.count + world.guests.besides,
      copies.count { !$0.isDurable } + parcels.count { !$0.isPersistent },
      copies.reduce(0) { $0 + $1.message.size + Self.overheadMax }
        + parcels.reduce(0) { $0 + $1.size + Self.overheadMax }
    )
  }

  /// Bytes of a message besides its body: header, names, properties, its place in a lane.
  private static let overheadMax = 512

  private var largeBytes: Int { max(Self.blockBytes, world.scenario.largeBytes + 8192) }

  /// A queue with a damaged record moves nothing from there on, also not of what is in memory alone: each
  /// of its messages can keep a block.
  private func memoryMax(_ transientCount: Int) -> Int {
    let settings = world.scenario.settings
    let staying = world.oracle.isRotten ? transientCount * largeBytes : 0
    return settings.cacheBytes + settings.transientBytesMax + 4 * largeBytes + staying
      + uncommittedBytes
  }

  /// Of messages in transactions, which a client may leave open: large ones are in memory that becomes a
  /// block's.
  private var uncommittedBytes: Int {
    let messages = connections.lazy.flatMap(\.model.channels.values)
      .flatMap { $0.transaction?.messages ?? [] }
    return messages.reduce(0) { $0 + $1.size + Self.overheadMax + 2 * 4096 }
  }

  private func diskMax(_ count: Int) -> Int {
    let settings = world.scenario.settings
    let log = settings.windowBytes / 4 * 5 + 2 * largeBytes
    // Segments go in their order: behind a damaged record that stays in the log all are there.
    let kept = world.oracle.isRotten ? journal.segmentCount : 0
    let segments = max(log / settings.segmentBytes + 2, kept) + Self.sparesMax
    let betweenHoles = settings.holeBytesMin + 2 * 4096
    return segments * (settings.segmentBytes + 4096) + journal.laneBytes
      + (count + journal.laneFileCount) * betweenHoles + Self.blockBytes + waitingBytes
  }

  /// What may wait for the next checkpoint, since writing it must not cost more than it gives back: four
  /// times its bytes in the mean of what the log has grown by and what goes, or eight times if nothing is
  /// logged.
  var waitingBytes: Int {
    8 * world.disk.listing.reduce(0) { $0 + ($1.name.hasSuffix(".checkpoint") ? $1.bytes : 0) }
  }
}
