import AMQP
import Arbitrary
import Base
import Testing

@testable import Broker
@testable import Journal
@testable import Server

/// Clients that make mistakes, or are attackers: whatever they send, the broker stands, others are
/// served, and what the clients held is given back.
@Suite struct SessionFuzzTests {
  private static let conversations = 20
  private static let steps = 40

  @Test(arguments: Seed.some(12))
  func damagedConversationsHarmNobodyElse(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    let loop = try TestLoop(settings: Self.settings, limits: Self.limits)
    let bystander = try Bystander(on: loop)
    for number in 0..<Self.conversations {
      let held = try converse(on: loop, number, &random)
      loop.setAlarm(nil)
      loop.settle()
      try bystander.requireService()
      for queue in held.queues { try bystander.requireAbsence(of: queue) }
      try requireNothingHeld(held, in: loop)
    }
    try requireRecovery(of: loop)
  }

  private static var settings: SessionSettings {
    var settings = SessionSettings()
    settings.outputMax = 64 << 10
    settings.messageSizeMax = 1 << 20
    return settings
  }

  private static var limits: BrokerLimits {
    var limits = BrokerLimits()
    limits.queuesMax = 100
    limits.consumersMax = 20
    limits.unacknowledgedMax = 200
    limits.unreadReplyBytesMax = 64 << 10
    return limits
  }

  /// The most that may be unsent: answers, direct replies, and one message more of each.
  private static let outputBound = 4 * (64 << 10) + (64 << 10) + (64 << 10) + 300_000

  /// Two clients that get in each other's way. They are gone at the end; what they held is returned.
  private func converse(
    on loop: TestLoop, _ number: Int, _ random: inout SeededGenerator
  ) throws -> HeldByClients {
    let clients = (0..<2).map { index in
      FuzzClient(
        loop.connect(), name: "fuzz-\(index)", random: SeededGenerator(seed: random.next()))
    }
    for client in clients { try client.begin() }
    for _ in 0..<Self.steps {
      for client in clients where !client.isOver {
        try client.step()
        if random.oneIn(2) { loop.turn() } else if random.oneIn(3) { loop.settle() }
        if random.oneIn(20) { loop.setAlarm(random.oneIn(3) ? "low on memory" : nil) }
        try #require(client.client.outputPeak < Self.outputBound, "conversation \(number)")
      }
    }
    let held = HeldByClients(
      sessions: clients.map {
        WeakSession(session: $0.client.session, peer: $0.client.session.peer)
      },
      queues: try queues(of: loop).filter(\.isExclusive).map(\.name))
    for client in clients { loop.drop(client.client) }
    return held
  }

  private func requireNothingHeld(_ held: HeldByClients, in loop: TestLoop) throws {
    for reference in held.sessions {
      try #require(reference.session == nil && reference.peer == nil)
    }
    for queue in try queues(of: loop) {
      try #require(!queue.isExclusive, "queue \(queue.name) outlived its connection")
      try #require(queue.consumerCount == 0, "queue \(queue.name)")
      try #require(queue.messageCount == queue.readyCount, "queue \(queue.name)")
    }
    let messages = try queues(of: loop).reduce(0) { $0 + $1.messageCount }
    try #require(loop.broker.journal.references == messages)
  }

  private func queues(of loop: TestLoop) throws -> [Destination] {
    Array(try #require(loop.broker.vhost("/")).destinations.values)
  }

  /// What is durable comes back, and with the last queue goes the last message.
  private func requireRecovery(of loop: TestLoop) throws {
    let names = try queues(of: loop).filter(\.isDurable).map(\.name).sorted()
    let again = try TestLoop(
      settings: Self.settings, limits: Self.limits, directory: loop.close())
    let vhost = try #require(again.broker.vhost("/"))
    try #require(vhost.destinations.keys.sorted() == names)
    try Bystander(on: again).requireService()
    for queue in vhost.destinations.values { vhost.remove(queue, .deleted) }
    again.settle()
    let journal = again.broker.journal
    try #require(journal.references == 0 && journal.pinnedBytes <= BlockMemory.usualBytes)
    let live = journal.segments.firstLive(notAbove: journal.durablePosition)
    try #require(live == journal.durablePosition / journal.settings.segmentBytes)
  }
}

extension Journal {
  /// Entries that refer to blocks, which live as long.
  fileprivate var references: Int {
    (0..<blockCapacity).reduce(0) { $0 + blocks[$1].references }
  }
}

/// What must not outlive its connections.
private struct HeldByClients {
  let sessions: [WeakSession]
  /// Exclusive to one of them.
  let queues: [Name]
}

private struct WeakSession {
  weak var session: Session?
  weak var peer: Peer?
}
