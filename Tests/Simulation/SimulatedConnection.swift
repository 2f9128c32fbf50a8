import AMQP
import Arbitrary
import Base
import Server

/// A client's bytes on their way to a session and back. The session gets them request by request, or
/// in pieces of requests, so that it is known when the broker has taken each.
final class SimulatedConnection {
  let session: DetachedSession
  let model: ConnectionModel
  private let oracle: Oracle
  private let topology: Topology

  /// Sent by the client and not taken by the session.
  private var outgoing: [UInt8] = []
  private var commands: [Command] = []
  /// Bytes of `outgoing` that have arrived.
  private var arrived = 0
  /// Bytes of the first command that the session has taken.
  private var taken = 0

  /// Bytes of the session's output that were looked at.
  private var heardBytes = 0
  private var unsent: [Heard] = []

  /// What the client will hear once so many more bytes were sent.
  private final class Heard {
    let event: ClientEvent
    var bytes: Int
    /// The message that it is, if a queue gave it.
    var copy: Copy?

    init(event: ClientEvent, bytes: Int) {
      self.event = event
      self.bytes = bytes
    }
  }

  init(session: DetachedSession, name: String, oracle: Oracle, topology: Topology) {
    self.session = session
    self.oracle = oracle
    self.topology = topology
    model = ConnectionModel(name: name)
  }

  var waitingBytes: Int { outgoing.count }
  var isOver: Bool { model.isClosed || session.isClosed }

  /// Nothing is underway to the broker, and nothing is missing from it.
  var isAnswered: Bool {
    outgoing.isEmpty
      && model.channels.values.allSatisfy { $0.expected.isEmpty && $0.unconfirmed.isEmpty }
  }

  // MARK: To the broker

  func send(_ action: Command.Action, on channel: UInt16 = 1) {
    let command = Command(action, on: channel, in: topology)
    commands.append(command)
    outgoing += command.bytes
  }

  /// Gives the session the next request, or a part of it. Returns whether it took anything.
  func feed(_ random: inout SeededGenerator) throws(BrokenPromise) -> Bool {
    guard session.isTaking, let command = commands.first else { return false }
    let rest = command.bytes.count - taken
    let end = random.oneIn(8) ? random.number(min(arrived, rest)...rest) : rest
    arrived = max(arrived, end)
    let count = outgoing.withUnsafeBytes {
      session.receive(UnsafeRawBufferPointer(rebasing: $0[..<end]))
    }
    outgoing.removeFirst(count)
    arrived -= count
    taken += count
    invariant(taken <= command.bytes.count, "the session took more than it was given")
    let events = try newEvents()
    if taken == command.bytes.count {
      taken = 0
      commands.removeFirst()
      oracle.trace.note("\(model.name) \(Self.describe(command))")
      try oracle.took(command, from: model, refused: Self.refusal(command.channel, events))
    }
    for heard in events { try hear(heard) }
    return count > 0
  }

  private static func refusal(_ channel: UInt16, _ events: [Heard]) -> String? {
    for case .method(let method, let number) in events.map(\.event) {
      switch method {
      case .channelClose(let close) where number == channel: return close.replyText.description
      case .connectionClose(let close): return close.replyText.description
      default: break
      }
    }
    return nil
  }

  private static func describe(_ command: Command) -> String {
    guard case .publish(let message) = command.action else {
      return "channel \(command.channel) \(command.action)"
    }
    return
      "publishes m\(message.id) to '\(message.exchange)' '\(message.key)', \(message.size) bytes"
      + (message.isPersistent ? ", persistent" : "")
  }

  // MARK: From the broker

  /// Looks at what the session has written since the last time.
  func listen() throws(BrokenPromise) {
    for heard in try newEvents() { try hear(heard) }
  }

  private func hear(_ heard: Heard) throws(BrokenPromise) {
    oracle.trace.note("  \(model.name) hears \(Self.describe(heard.event))")
    heard.copy = try oracle.heard(heard.event, on: model)
  }

  private func newEvents() throws(BrokenPromise) -> [Heard] {
    let output = session.output
    guard output.count > heardBytes else { return [] }
    var events: [Heard] = []
    let start = heardBytes
    try OutputTap.parse(UnsafeRawBufferPointer(rebasing: output[start...])) { event, end in
      events.append(Heard(event: event, bytes: start + end))
    }
    unsent += events
    heardBytes = output.count
    return events
  }

  private static func describe(_ event: ClientEvent) -> String {
    switch event {
    case .method(let method, let channel): "\(method) on channel \(channel)"
    case .content(let content):
      "\(content.kind) m\(content.id ?? 0) of \(content.body.count) bytes"
    }
  }

  /// The network takes up to `count` bytes of the output; `body` gets what the client hears with them.
  func transmit(_ count: Int, _ body: (ClientEvent) -> Void) {
    let count = min(count, session.output.count)
    guard count > 0 else { return }
    _ = session.sent(count)
    heardBytes -= count
    for heard in unsent { heard.bytes -= count }
    while let first = unsent.first, first.bytes <= 0 {
      unsent.removeFirst()
      first.copy?.seen(isSaid: oracle.journal?.failure == nil)
      body(first.event)
    }
  }

  /// The connection breaks.
  func disconnect() {
    session.disconnect()
    model.close()
  }
}
