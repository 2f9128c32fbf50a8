import AMQP
import Arbitrary
import Base
import Testing

@testable import Client
@testable import Server

/// A client that does what clients do, in any order, and damages some of it on the way. It keeps
/// track of what it opened and received, so that most of what it sends has a meaning.
final class FuzzClient {
  /// What the client believes of a channel.
  struct OpenChannel {
    var unacknowledged: [UInt64] = []
    var consumers: [Name] = []
    /// Consumes direct replies.
    var hasReplies = false
  }

  let client: TestClient
  var random: SeededGenerator
  /// In front of the names of its exclusive queues.
  let name: String
  var channels: [UInt16: OpenChannel] = [:]
  private(set) var frameMax = 0
  /// Where replies to some client go.
  var replyAddress: Name = ""
  /// One batch in so many is damaged; 0 damages none.
  private let damagedOneIn: Int
  private var history: [[UInt8]] = []
  /// What must be answered next.
  private var answers: [[UInt8]] = []
  private(set) var isOver = false

  init(_ client: TestClient, name: String, random: SeededGenerator) {
    self.client = client
    self.name = name
    self.random = random
    damagedOneIn = self.random.choose([0, 5, 20, 50, 100])
  }

  var exclusiveNames: [Name] { [Name("\(name)-own-0"), Name("\(name)-own-1")] }

  // MARK: Sending

  /// Says hello; at times not quite as it should.
  func begin() throws {
    try send([Frame.protocolHeader], mayDamage: random.oneIn(50))
    var frames = [Wire.method(.connectionStartOk(Wire.startOK), on: 0)]
    frameMax = random.choose([4096, 5000, 131_072])
    frames.append(Wire.method(.connectionTuneOk(Wire.tuneOK(frameMax: frameMax)), on: 0))
    frames.append(Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0))
    try send(frames, mayDamage: random.oneIn(10))
    try send((1...3).map(openFrame) + topology(on: 1), mayDamage: random.oneIn(10))
  }

  /// Sends some requests, after what has to be answered.
  func step() throws {
    client.isReading = client.isReading ? !random.oneIn(40) : random.oneIn(4)
    var frames = answers
    answers = []
    for _ in 0..<random.number(1...6) { frames += request() }
    try send(frames, mayDamage: true)
  }

  private func send(_ frames: [[UInt8]], mayDamage: Bool) throws {
    var frames = frames
    if mayDamage, damagedOneIn > 0, random.oneIn(damagedOneIn) {
      for _ in 0..<random.choose([1, 1, 2, 5]) { random.mutate(&frames, history: history) }
    }
    history = history.suffix(50) + frames
    for piece in random.cut(frames.flatMap(\.self)) {
      client.send(piece)
      if random.oneIn(20) { try listen() }
    }
    try listen()
  }

  // MARK: Listening

  /// Takes what the broker says, which must be valid AMQP whatever the client does.
  func listen() throws {
    let bytes = client.takeBytes()
    // This is what clients of another protocol are told.
    if bytes == Frame.protocolHeader, client.session.state == .closed {
      isOver = true
      return
    }
    for event in try ClientEvent.parse(bytes) { try note(event) }
    if client.session.state == .closed { isOver = true }
  }

  private func note(_ event: ClientEvent) throws {
    switch event {
    case .message(let message): try note(message)
    case .method(.channelOpenOk, let channel): channels[channel]?.unacknowledged = []
    case .method(.channelClose, let channel):
      channels[channel] = nil
      answers.append(Wire.method(.channelCloseOk(ChannelCloseOk()), on: channel))
    case .method(.basicConsumeOk(let arguments), let channel):
      channels[channel]?.consumers.append(arguments.consumerTag)
    case .method(.basicCancelOk(let arguments), let channel):
      channels[channel]?.consumers.removeAll { $0 == arguments.consumerTag }
    case .method(.connectionClose(let arguments), _):
      #expect(arguments.replyCode != 541, "\(arguments.replyText)")
      answers.append(Wire.method(.connectionCloseOk(ConnectionCloseOk()), on: 0))
    case .method, .confirm: break
    }
  }

  private func note(_ message: ClientMessage) throws {
    if let properties = try? message.decodedProperties(), let replyTo = properties.replyTo,
      replyTo.hasPrefix("amq.rabbitmq.reply-to.")
    {
      replyAddress = replyTo
    }
    guard message.kind != .returned, let open = channels[message.channel] else { return }
    // A channel that was opened again without its knowledge counts anew.
    if let last = open.unacknowledged.last, damagedOneIn == 0 {
      try #require(message.deliveryTag > last)
    }
    channels[message.channel]?.unacknowledged.append(message.deliveryTag)
  }
}

extension ClientMessage {
  fileprivate func decodedProperties() throws(MalformedInput) -> BasicProperties {
    var reader = ByteReader(properties.span.bytes)
    return try BasicProperties(from: &reader)
  }
}
