import AMQP
import Arbitrary
import Base
import IO
import Server
import Testbed

/// A client's bytes on their way to the loop and back. The loop gets them request by request, or in
/// pieces of requests, so that it is known when the broker has taken each.
final class SimulatedConnection {
  let model: ConnectionModel
  private(set) var connection: Connection!
  private let socket = SimulatedSocket()
  private let oracle: Oracle
  private let topology: Topology
  private let roomBytes: Int
  private var random: SeededGenerator
  /// Everything that can be read is read in one turn, and written.
  var isFast = false {
    didSet { if isFast { socket.roomBytes = Self.roomBytesMax } }
  }
  private static let roomBytesMax = 1 << 20

  /// Sent by the client and not taken by the session.
  private var commands: [Command] = []
  /// Bytes of `commands`.
  private(set) var waitingBytes = 0
  /// Bytes of `commands` that the loop has read.
  private var readBytes = 0
  /// Bytes of the first command that the session has taken.
  private var taken = 0

  /// The session's output that was looked at and not written.
  private var heardBytes: [UInt8] = []
  /// The session wrote something else than it had said.
  private var hasFalseOutput = false
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

    var isEnd: Bool {
      if case .method(.connectionClose, _) = event { true } else { false }
    }

    /// The connection is closed because a message is damaged.
    var isForDamage: Bool {
      guard case .method(.connectionClose(let close), _) = event else { return false }
      return Oracle.isForDamage(close.replyText.description)
    }

    /// No request leads to it, but what queues do by themselves.
    var isUnasked: Bool {
      switch event {
      case .content(let content): content.isDelivery
      case .method(.basicCancel, _): true
      case .method: false
      }
    }
  }

  init(
    name: String, on loop: Loop, speaking sessions: AMQPSessions, oracle: Oracle,
    topology: Topology, random: SeededGenerator, listenToAll: @escaping () -> Void
  ) {
    self.oracle = oracle
    self.topology = topology
    self.random = random
    roomBytes = self.random.choose([1000, 20_000, Self.roomBytesMax])
    model = ConnectionModel(name: name, oracle: oracle)
    socket.roomBytes = roomBytes
    socket.onRead = { [unowned self] available, room in read(available, room) }
    socket.onWrite = { [unowned self] bytes, room in
      listenToAll()
      return write(bytes, room)
    }
    socket.onClose = { [unowned self] in
      // What it gives back has not been delivered to others yet.
      listenToAll()
      model.close()
    }
    do throws(SystemError) {
      connection = try loop.add(
        ClientAddress(name: name, isLoopback: true), speaking: sessions
      ) { _ in socket }
    } catch {
      invariantFailed("a simulated socket failed: \(error)")
    }
    model.hasRoom = { [unowned self] in !connection.isOutputFull }
    model.isWorking = { [unowned self] in connection.isWorking }
    model.isWaiting = { [unowned self] in connection.isWaitingForLog }
  }

  var isOver: Bool { model.isClosed || connection.isOver || connection.isClosed }

  /// Nothing is underway to the broker, and nothing is missing from it.
  var isAnswered: Bool {
    commands.isEmpty
      && model.channels.values.allSatisfy { $0.expected.isEmpty && $0.unconfirmed.isEmpty }
  }

  /// What it asked for next is a message.
  var isGetting: Bool {
    if case .get = commands.first?.action { true } else { false }
  }

  // MARK: To the broker

  func send(_ action: Command.Action, on channel: UInt16 = 1) {
    let command = Command(action, on: channel, in: topology)
    commands.append(command)
    waitingBytes += command.bytes.count
    socket.send(command.bytes)
  }

  /// The loop is to be told of something.
  var isReady: Bool { socket.readiness != nil }

  /// Something can be read or written. Returns whether there was anything.
  func tell(_ loop: Loop) -> Bool {
    guard let (reads, writes) = socket.readiness else { return false }
    loop.ready(
      connection.token, reads: reads, writes: writes, isBroken: socket.isBroken)
    return true
  }

  /// What the loop reads at once: a request, or a part of one, and perhaps the next one behind it.
  private func read(_ available: Int, _ room: Int) -> (count: Int, isMore: Bool) {
    var end = -taken
    var next = 0
    while end <= readBytes - taken, next < commands.count {
      end += commands[next].bytes.count
      next += 1
    }
    let rest = min(end + taken - readBytes, available, room)
    let count = random.oneIn(8) ? random.number(1...rest) : rest
    readBytes += count
    let isMore = count == rest && count < available && (isFast || !random.oneIn(6))
    return (count, isMore)
  }

  /// What the session gets of bytes that were read before: request by request, but for those of a
  /// blocked client, which are looked through for a close.
  func portion(of count: Int) -> Int {
    guard let first = commands.first, !connection.isBlocked else { return count }
    return min(count, first.bytes.count - taken)
  }

  /// The session got bytes and has not taken the last so many: the broker may have taken a request, or
  /// some of them.
  func took(_ untaken: Int) throws(BrokenPromise) {
    taken = readBytes - untaken
    var events = try newEvents()[...]
    while let command = commands.first, taken >= command.bytes.count {
      // What was delivered before its reply was delivered before it was taken, and consumers whose end
      // is told there had ended. What ends with the request is told behind the reply. Who cannot be told
      // has lost its connection, and what it asked for is not done.
      while let first = events.first, first.isUnasked || (!model.isTold && first.isForDamage) {
        try hear(events.removeFirst())
      }
      try oracle.compareDeliveries()
      taken -= command.bytes.count
      readBytes -= command.bytes.count
      waitingBytes -= command.bytes.count
      commands.removeFirst()
      oracle.trace.note("\(model.name) \(Self.describe(command))")
      let isLast = commands.first.map { taken < $0.bytes.count } ?? true
      let isRefused = isLast || oracle.isMistaken(command, from: model)
      let refused = isRefused ? Self.refusal(command.channel, events) : nil
      try oracle.took(command, from: model, refused: refused)
      if isLast { break }
      try hearAnswer(command.channel, isRefused: refused != nil, &events)
    }
    for heard in events { try hear(heard) }
  }

  /// Hears what the broker said to one of several requests.
  private func hearAnswer(
    _ channel: UInt16, isRefused: Bool, _ events: inout ArraySlice<Heard>
  ) throws(BrokenPromise) {
    while let next = events.first {
      let model = model.channels[channel]
      guard isRefused ? model?.isClosing == false : model?.expected.isEmpty == false else { return }
      events.removeFirst()
      try hear(next)
    }
  }

  private static func refusal(_ channel: UInt16, _ events: ArraySlice<Heard>) -> String? {
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

  /// Looks at what sessions have written since the last time. Which of them wrote first is not seen, but
  /// what a connection that ended had locked comes to others only behind its end, and all else before.
  static func listen(to connections: [SimulatedConnection]) throws(BrokenPromise) {
    var news: [(connection: SimulatedConnection, events: ArraySlice<Heard>)] = []
    for connection in connections {
      let events = try connection.newEvents()
      if !events.isEmpty { news.append((connection, events[...])) }
    }
    while !news.isEmpty {
      for index in news.indices {
        let connection = news[index].connection
        while let first = news[index].events.first, !connection.isBehindEnd(first) {
          try connection.hear(news[index].events.removeFirst())
        }
      }
      news.removeAll { $0.events.isEmpty }
      // Those that end, or whatever must not be there.
      let ends = news.indices.filter { news[$0].events.first?.isEnd ?? false }
      for index in ends.isEmpty ? Array(news.indices) : ends {
        try news[index].connection.hear(news[index].events.removeFirst())
      }
      news.removeAll { $0.events.isEmpty }
    }
  }

  /// It can have been written only when some connection had ended, perhaps this one.
  private func isBehindEnd(_ heard: Heard) -> Bool {
    guard case .content(let content) = heard.event else { return heard.isEnd }
    return oracle.isLocked(content, on: model)
  }

  private func hear(_ heard: Heard) throws(BrokenPromise) {
    oracle.trace.note("  \(model.name) hears \(Self.describe(heard.event))")
    // What it was given before left the queues before what it gives back came to them.
    if heard.isEnd { try oracle.compareDeliveries() }
    if !model.isTold, heard.isForDamage {
      try promise(
        oracle.isRotten || isGetting, "connections are closed for what is damaged", model.name)
      oracle.coverage.note(.closesForDamage)
    }
    heard.copy = try oracle.heard(heard.event, on: model)
  }

  private func newEvents() throws(BrokenPromise) -> [Heard] {
    try promise(!hasFalseOutput, "what is sent is what was said", model.name)
    let start = heardBytes.count
    guard connection.unsentCount > start else { return [] }
    var events: [Heard] = []
    let output = connection.unsent(from: start)
    try output.span.bytes.withUnsafeBytes { (bytes) throws(BrokenPromise) in
      try OutputTap.parse(bytes) { event, end in
        events.append(Heard(event: event, bytes: socket.unreadCount + start + end))
      }
    }
    unsent += events
    heardBytes += output
    return events
  }

  private static func describe(_ event: ClientEvent) -> String {
    switch event {
    case .method(let method, let channel): "\(method) on channel \(channel)"
    case .content(let content):
      "\(content.kind) m\(content.id ?? 0) of \(content.body.count) bytes"
    }
  }

  /// The loop writes: the network takes some of it.
  private func write(_ bytes: UnsafeRawBufferPointer, _ room: Int) -> Int {
    let count = random.oneIn(4) ? random.number(0...room) : room
    if !bytes[..<count].elementsEqual(heardBytes[..<count]) { hasFalseOutput = true }
    heardBytes.removeFirst(count)
    return count
  }

  /// The client reads up to `count` bytes; `body` gets what it hears with them.
  func receive(_ count: Int, _ body: (ClientEvent) -> Void) {
    let count = socket.receive(count).count
    guard count > 0 else { return }
    for heard in unsent { heard.bytes -= count }
    while let first = unsent.first, first.bytes <= 0 {
      unsent.removeFirst()
      first.copy?.seen(isSaid: oracle.isToldOfDeliveries)
      body(first.event)
    }
  }

  /// The connection breaks.
  func breakOff() { socket.breakOff() }

  /// The broker's process is gone.
  func abandon() { socket.onClose = nil }
}
