import AMQP
import Base
import Journal

/// Answers what is asked of the broker itself (Specs/Management.md).
public protocol ManagementResponder: AnyObject {
  /// Sees to it that the request is answered, once: in this turn or by a chore.
  func respond(to request: ManagementRequest)
}

/// Something that is asked of the broker itself, by whatever way it came.
public final class ManagementRequest {
  /// What is asked: JSON.
  public let body: [UInt8]
  /// What it is about.
  public let vhost: VirtualHost
  /// Who asks: other requests of that connection wait while this one is worked on.
  public let peer: Peer
  private let reply: ([UInt8]) -> Void
  private var isAnswered = false

  /// `reply` takes the answer, which may come in a later turn.
  public init(
    _ body: [UInt8], in vhost: VirtualHost, from peer: Peer, reply: @escaping ([UInt8]) -> Void
  ) {
    self.body = body
    self.vhost = vhost
    self.peer = peer
    self.reply = reply
  }

  public func answer(_ body: [UInt8]) {
    invariant(!isAnswered, "a request is answered twice")
    isAnswered = true
    vhost.broker.requests.activeCount -= 1
    reply(body)
  }

  /// What it takes of memory while it waits.
  fileprivate var waitingBytes: Int { 1024 + body.count }
}

/// Requests that wait, and those that are worked on.
struct ManagementLoad {
  fileprivate var waitingBytes = 0
  fileprivate var activeCount = 0
  /// What is to be told when the log is durable up to a position, in their order: nil, or why it never will be.
  fileprivate var undurable: [(position: Int, done: (String?) -> Void)] = []
}

extension Broker {
  /// Has a request answered, behind what its connection asked before. False if too many wait: nothing becomes
  /// of it then.
  public func take(_ request: ManagementRequest, by responder: any ManagementResponder) -> Bool {
    let bytes = requests.waitingBytes + request.waitingBytes
    guard bytes <= BrokerLimits.managementWaitingBytesMax else { return false }
    requests.waitingBytes = bytes
    chores.add(ManagementWork(request, responder), for: request.peer)
    return true
  }
}

extension Broker {
  /// Calls `done` once all that the log has is durable, with nil; or with the reason if it fails before.
  func whenDurable(_ done: @escaping (String?) -> Void) {
    if let reason = journal.failure { return done(reason) }
    guard journal.endPosition > journal.durablePosition else { return done(nil) }
    requests.undurable.append((journal.endPosition, done))
  }

  /// The log is durable up to there.
  func tellDurable(upTo position: Int) {
    while let first = requests.undurable.first, first.position <= position {
      requests.undurable.removeFirst().done(nil)
    }
  }

  /// The log has failed.
  func tellFailure(_ reason: String) {
    let told = requests.undurable
    requests.undurable = []
    for each in told { each.done(reason) }
  }
}

/// A request that waits for its turn. Reading it and writing its answer take time besides what is done in
/// between, and what is found out takes memory: not too many are worked on at once.
private final class ManagementWork: Chore {
  private let request: ManagementRequest
  private let responder: any ManagementResponder
  private static let stepsPerRequest = 64
  private static let bytesPerStep = 16

  init(_ request: ManagementRequest, _ responder: any ManagementResponder) {
    self.request = request
    self.responder = responder
  }

  func advance(_ steps: inout Int) -> Bool {
    let broker = request.vhost.broker
    guard !request.peer.isClosed else {
      broker.requests.waitingBytes -= request.waitingBytes
      return true
    }
    guard broker.requests.activeCount < BrokerLimits.managementActiveMax else { return false }
    steps -= Self.stepsPerRequest + request.body.count / Self.bytesPerStep
    broker.requests.waitingBytes -= request.waitingBytes
    broker.requests.activeCount += 1
    responder.respond(to: request)
    return true
  }
}

// MARK: Over AMQP

/// The routing key of the default exchange that requests are published to, which no queue can have.
enum ManagementAddress {
  static let key: Name = "amq.martlet.management"

  static func isOf(_ names: RawSpan) -> Bool {
    guard names.unsafeLoad(fromByteOffset: 0, as: UInt8.self) == 0 else { return false }
    return RouteMemo.split(names).key == key
  }
}

extension Channel {
  /// Somebody would answer a request with these properties. The answer needs a place to go to.
  func takesRequest(properties: RawSpan) -> Bool {
    broker.management != nil && Self.placeOfAnswer(properties) != nil
  }

  private static func placeOfAnswer(_ properties: RawSpan) -> (key: Name, correlation: Name?)? {
    do throws(MalformedInput) {
      var reader = ByteReader(properties)
      let decoded = try BasicProperties(from: &reader)
      guard let key = decoded.replyTo, !key.isEmpty else { return nil }
      return (key, decoded.correlationID)
    } catch {
      return nil
    }
  }

  /// Takes a message to the management address. False if nobody answers it, or nobody would get the answer.
  func takeRequest(properties: RawSpan, body: RawSpan, _ draft: RecordDraft?) -> Bool {
    guard let responder = broker.management, let place = Self.placeOfAnswer(properties) else {
      return false
    }
    // The answer goes its way even if the channel is closed meanwhile.
    let vhost = vhost
    let send = { (answer: [UInt8]) in
      vhost.send(answer: answer, to: place.key, correlation: place.correlation)
    }
    let max = BrokerLimits.managementRequestBytesMax
    guard draft == nil, body.byteCount <= max else {
      send(Self.error("a request has at most \(max) bytes"))
      return true
    }
    let request = ManagementRequest(
      body.withUnsafeBytes { Array($0) }, in: vhost, from: peer, reply: send)
    if !broker.take(request, by: responder) {
      send(Self.error("too many requests wait; ask again later"))
    }
    return true
  }

  private static func error(_ text: String) -> [UInt8] { Array(#"{"error":"\#(text)"}"#.utf8) }
}

extension VirtualHost {
  /// Publishes an answer in the default exchange. One that nobody takes is dropped.
  fileprivate func send(answer: [UInt8], to key: Name, correlation: Name?) {
    var names = ByteBuffer()
    names.append("" as Name)
    names.append(key)
    var properties = BasicProperties()
    properties.contentType = "application/json"
    properties.correlationID = correlation
    var block = ByteBuffer()
    properties.encode(into: &block)
    if let token = DirectReplies.token(names.readable.bytes) {
      _ = replyChannel(token)?.deliverReply(
        names: names.readable.bytes, properties: block.readable.bytes, body: answer.span.bytes, nil)
    } else if let found = destinations[key], found.isRoutable {
      broker.storeMoved(
        names: names.readable.bytes, properties: block.readable.bytes, body: answer.span.bytes,
        in: Route(those: [.passUnretained(found)]), isPersistent: false)
    }
  }
}
