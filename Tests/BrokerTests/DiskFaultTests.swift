import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Each single operation of the disk fails once, or from then on: what was confirmed is there.
@Suite struct DiskFaultTests {
  private static var settings: Journal.Settings {
    var settings = Journal.Settings.moving
    settings.segmentBytes = 64 << 10
    settings.windowBytes = 64 << 10
    settings.isSynced = true
    settings.sparseFilesMin = 3
    return settings
  }

  /// What a client knows.
  private struct Ledger {
    var published: [String] = []
    var confirmed: Set<UInt64> = []
    var acknowledged: Set<String> = []

    /// Those that must be there: confirmed, and never acknowledged.
    var owed: [String] {
      published.enumerated().filter { index, text in
        confirmed.contains(UInt64(index + 1)) && !acknowledged.contains(text)
      }.map(\.element)
    }
  }

  /// A client that publishes, takes some, leaves some, while the log moves on.
  private final class Session {
    let broker: TestBroker
    let client: TestClient
    let channel: Channel
    var ledger = Ledger()
    private var tags: [(tag: UInt64, text: String)] = []

    init(_ disk: FaultyDisk, in directory: TemporaryDirectory) throws {
      broker = try TestBroker(in: directory, settings: settings, disk: disk)
      client = broker.connect()
      channel = client.open()
      try channel.startConfirming()
      try channel.declare("q", isDurable: true)
    }

    func run() throws {
      for round in 0..<6 {
        try broker.turn {
          for number in 0..<6 { try publish(round * 6 + number) }
          if round == 2 { try channel.consume("q", tag: "c") }
        }
        broker.work(3)
        note()
        try settleSome()
        broker.advance(milliseconds: 6000)
        broker.work(2)
        note()
      }
    }

    private func publish(_ number: Int) throws {
      // A session closes the channel of whoever publishes to a log that has failed.
      guard broker.journal.failure == nil else { return }
      let text = "\(number):" + String(repeating: "x", count: number % 5 == 0 ? 30_000 : 4000)
      ledger.published.append(text)
      try channel.publish(text, key: "q", isPersistent: true)
    }

    func note() {
      for event in client.events() {
        switch event {
        case .confirmed(let sequence, let isMultiple, _):
          for each in (isMultiple ? 1 : sequence)...sequence
          where !refused.contains(each) { ledger.confirmed.insert(each) }
        case .refused(let sequence, let isMultiple, _):
          for each in (isMultiple ? 1 : sequence)...sequence
          where !ledger.confirmed.contains(each) { refused.insert(each) }
        case .delivered(let delivery): tags.append((delivery.tag, delivery.text))
        case .cancelled, .timedOut, .returned, .commitFailed, .commitRolledBack: break
        }
      }
    }

    private(set) var refused: Set<UInt64> = []

    /// Most, so that files empty; every seventh stays.
    private func settleSome() throws {
      for (index, each) in tags.enumerated() where index % 7 != 0 {
        ledger.acknowledged.insert(each.text)
        try channel.acknowledge(each.tag, isMultiple: false)
      }
      tags = tags.enumerated().filter { $0.offset % 7 == 0 }.map(\.element)
    }
  }

  /// Whether a fault fired.
  private func faultFires(at number: Int, lasts: Bool) throws -> Bool {
    let directory = try TemporaryDirectory()
    let disk = FaultyDisk()
    let seen = FaultyDisk.Counter()
    let code: Int32 = number.isMultiple(of: 2) ? 5 : 28
    disk.set { operation, _ in
      guard operation != .list, operation != .read else { return nil }
      let place = seen.next()
      return place == number || lasts && place > number ? code : nil
    }
    let comment: Comment = "operation \(number)\(lasts ? " and all behind it" : "")"
    var ledger = Ledger()
    if let session = try? Session(disk, in: directory) {
      try session.run()
      expectHonesty(session, isDiskWell: !lasts, comment)
      session.broker.close()
      session.note()
      ledger = session.ledger
    }
    let again = try TestBroker(in: directory, settings: Self.settings)
    let channel = again.connect().open()
    guard again.queue("q") != nil else {
      #expect(ledger.owed.isEmpty, comment)
      return seen.count >= number
    }
    let found = try channel.drain("q").map(\.text)
    let owed = Set(ledger.owed)
    #expect(owed.subtracting(found).isEmpty, comment)
    #expect(Set(found).count == found.count, comment)
    #expect(found == ledger.published.filter(Set(found).contains), comment)
    again.work(3)
    again.expectNothingHeld()
    return seen.count >= number
  }

  /// A log that failed says so; one that did not has confirmed everything, sooner or later.
  private func expectHonesty(_ session: Session, isDiskWell: Bool, _ comment: Comment) {
    let published = Set(1...UInt64(session.ledger.published.count))
    if session.broker.journal.failure == nil {
      guard isDiskWell else { return }
      session.broker.work(4)
      session.note()
      #expect(session.ledger.confirmed == published, comment)
    } else {
      #expect(session.ledger.confirmed.union(session.refused) == published, comment)
    }
  }

  @Test(arguments: [false, true])
  func whatWasConfirmedSurvivesEveryFault(lasts: Bool) throws {
    var number = 1
    while try faultFires(at: number, lasts: lasts) { number += lasts ? 4 : 1 }
    #expect(number > 50)
  }

  @Test func aFailedSyncRefusesWhatIsDurableAndServesTheRest() throws {
    let disk = FaultyDisk()
    let broker = try TestBroker(settings: Self.settings, disk: disk)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("q", isDurable: true)
    try channel.declare("t")
    for number in 0..<40 {
      try channel.publish(
        "\(number):" + String(repeating: "x", count: 4000), key: "q", isPersistent: true)
    }
    try broker.moveOut(channel)
    try channel.startConfirming()
    disk.fail(.write, ".segment", code: 5)
    try broker.turn { try channel.publish("lost", key: "q", isPersistent: true) }
    broker.work(2)
    #expect(broker.journal.failure?.contains("Input/output error") == true)
    #expect(client.events().contains(.refused(1, isMultiple: false, on: 1)))
    disk.set(nil)
    let reason = try #require(broker.journal.failure)
    let refused = mistake { try channel.publish("no", key: "q", isPersistent: true) }
    #expect(refused == .journalFailed(reason: reason))
    // As a session does after a mistake.
    channel.close()
    broker.work(2)
    #expect(!client.events().contains { if case .confirmed = $0 { true } else { false } })
    let other = client.open(2)
    try broker.turn { try other.publish("transient", key: "t") }
    #expect(try other.take("t")?.text == "transient")
    for number in 0..<40 {
      #expect(try other.take("q")?.text.hasPrefix("\(number):") == true)
    }
    broker.close()
    let again = try TestBroker(in: broker.directory, settings: Self.settings)
    #expect(try again.connect().open().drain("q").prefix(40).count == 40)
  }

  @Test(arguments: [FaultyDisk.Operation.open, .allocate, .rename])
  func aCommitThatFindsNoSegmentIsResumed(operation: FaultyDisk.Operation) throws {
    let disk = FaultyDisk()
    let broker = try TestBroker(settings: Self.settings, disk: disk)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("q", isDurable: true)
    broker.durableTurn()
    broker.drainWorkers()
    try channel.startConfirming()
    disk.fail(operation, ".segment", code: 28)
    let body = [UInt8](repeating: 1, count: 20_000)
    for _ in 0..<10 {
      try broker.turn { try channel.publish(body, key: "q", isPersistent: true) }
      broker.drainWorkers()
    }
    // Each turn tries again.
    broker.drainWorkers()
    broker.broker.journalMoved()
    #expect(broker.journal.failure == nil)
    #expect(broker.journal.spaceProblem?.contains("No space left") == true)
    var confirmed = highestConfirmed(client)
    #expect(confirmed < 10)
    disk.set(nil)
    broker.work(6)
    confirmed = max(confirmed, highestConfirmed(client))
    #expect(confirmed == 10)
    #expect(broker.journal.spaceProblem == nil)
    let again = try broker.crashed(settings: Self.settings)
    #expect(
      try again.connect().open().drain("q").map(\.message.body) == Array(repeating: body, count: 10)
    )
  }

  private func highestConfirmed(_ client: TestClient) -> UInt64 {
    client.events().compactMap {
      if case .confirmed(let sequence, _, _) = $0 { sequence } else { nil }
    }.max() ?? 0
  }

  /// A file system in which no segment fits: nothing is left behind, tries become rare, and what is
  /// said stays the same.
  @Test func whereNoSegmentFitsNothingIsLeftAndTriesAreRare() throws {
    let disk = FaultyDisk()
    let tries = FaultyDisk.Counter()
    disk.set { operation, _ in
      guard operation == .allocate else { return nil }
      tries.next()
      return 28
    }
    let broker = try TestBroker(settings: Self.settings, disk: disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    var texts: Set<String> = []
    for _ in 0..<400 {
      broker.turn()
      broker.drainWorkers()
      if let problem = broker.journal.spaceProblem { texts.insert(problem) }
    }
    #expect(try broker.files(".segment") == [])
    #expect(
      texts == [
        "make a segment of \(Self.settings.segmentBytes) bytes in \(broker.directory.path):"
          + " No space left on device"
      ])
    // Once for the commit and once for a spare one each time, and less and less often.
    #expect((10...40).contains(tries.count), "\(tries.count) tries")
    #expect(broker.journal.stuckReason != nil)
    disk.set(nil)
    for _ in 0..<64 {
      broker.turn()
      broker.drainWorkers()
    }
    #expect(broker.journal.spaceProblem == nil && broker.journal.stuckReason == nil)
    #expect(!broker.journal.hasUncommitted)
  }
}
