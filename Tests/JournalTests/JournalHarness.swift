import Base
import IO
import Testbed

@testable import Journal

/// A message as the tests see it.
struct Message: Equatable {
  let number: UInt32
  let body: [UInt8]
}

/// Collects what a log says and keeps every message alive.
final class Collector: JournalReplay {
  let journal: Journal
  private(set) var messages: [(message: Message, location: RecordLocation)] = []
  private(set) var checkpointed: [UInt32] = []
  private(set) var blocks: [LaneBlock] = []

  init(_ journal: Journal) { self.journal = journal }

  func replayCheckpoint(_ record: RecordView) {
    checkpointed.append(record.word)
  }

  func replay(_ block: LaneBlock) {
    blocks.append(block)
  }

  func replay(_ record: RecordView, at location: RecordLocation, isBeforeCheckpoint: Bool) {
    journal.retain(location.block)
    messages.append((Message(number: record.word, body: Array(record.payload)), location))
  }
}

/// A journal that is driven by hand.
final class Harness {
  static let kind: UInt8 = 40

  let journal: Journal
  let collector: Collector
  let recovery: Recovery
  private let wake: JournalWake

  init(
    _ directory: String, _ settings: Journal.Settings = Harness.small,
    environment: Journal.Environment = Journal.Environment()
  ) throws {
    let wake = try JournalWake()
    var made: Collector?
    let (journal, recovery) = try Journal.open(
      directory: directory, settings: settings, environment: environment, now: 1,
      wake: { wake.signal() },
      replay: { journal in
        let collector = Collector(journal)
        made = collector
        return collector
      })
    self.journal = journal
    self.recovery = recovery
    self.wake = wake
    collector = made!
  }

  static var small: Journal.Settings {
    var settings = Journal.Settings()
    settings.segmentBytes = 1 << 20
    settings.diskReserveBytes = 0
    return settings
  }

  /// Appends a message with one reference.
  @discardableResult
  func append(_ message: Message) -> RecordLocation {
    let (location, payload) = journal.append(
      kind: Self.kind, word: message.number, payloadSize: message.body.count)
    payload.copyMemory(from: message.body, byteCount: message.body.count)
    journal.retain(location.block)
    return location
  }

  /// The message's body, read back if need be; nil if that fails.
  func body(at location: RecordLocation) -> [UInt8]? {
    journal.load(location.block)
    wait { journal.isResident(location.block) || journal.hasFailed(location.block) }
    guard let base = journal.pointer(location) else { return nil }
    let size = Int(base.load(as: UInt32.self))
    return Array(
      UnsafeRawBufferPointer(start: base + Record.headerSize, count: size - Record.headerSize))
  }

  /// Waits until everything that was appended is durable, or the journal failed.
  func settle() {
    while journal.failure == nil, journal.hasUncommitted {
      journal.commit(now: 2)
      if !journal.poll(now: 2).hasCommitted { wake.wait() }
      journal.trim()
    }
  }

  /// Waits until `condition` holds; every change comes with a wake.
  func wait(_ condition: () -> Bool) {
    while !condition() {
      wake.wait()
      _ = journal.poll(now: 2)
    }
  }

  /// Waits until the round that was begun is over; the lanes that have moved.
  func takeRound() -> [MovedLane] {
    while true {
      if let moved = journal.poll(now: 2).moved { return moved.lanes }
      wake.wait()
    }
  }

  func close() {
    journal.close(now: 3)
  }
}
