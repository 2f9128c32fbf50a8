import AMQP
import Base
import Client
import IO

/// Where a message goes when it is published in a certain way.
struct BenchRoute {
  let exchange: Name
  let routingKey: Name
  let headers: FieldTable?
}

/// The queues and the exchange of a run: their names, and who publishes where.
struct BenchTopology {
  let options: BenchOptions
  let queues: [Name]
  /// Empty for the default exchange.
  let exchange: Name
  /// What was not there before and is deleted in the end.
  private(set) var createdQueues: [Name] = []
  private(set) var hasCreatedExchange = false

  var hasCreatedAnything: Bool { !createdQueues.isEmpty || hasCreatedExchange }

  private static let channel: UInt16 = 1
  /// Bindings that are sent before their effect is waited for.
  private static let bindingBatch = 1000

  init(_ options: BenchOptions, processID: Int32) {
    self.options = options
    let prefix = options.queue.isEmpty ? "bench-\(processID)" : options.queue
    // Names of equal length give frames of equal length.
    let digits = String(options.queues - 1).count
    queues = (0..<options.queues).map { index in
      let number = Figures.right(String(index), digits, fill: "0")
      return Name(options.queues == 1 ? prefix : "\(prefix)-\(number)")
    }
    switch (options.exchangeType, options.exchange) {
    case (.default, _): exchange = ""
    case (let type, ""): exchange = Name("\(prefix)-\(type.rawValue)")
    case (_, let name): exchange = Name(name)
    }
  }

  /// Queues that publisher `index` reaches in turn; all messages of a fanout have one route.
  func routes(ofPublisher index: Int) -> [BenchRoute] {
    if options.exchangeType == .fanout { return [route(toQueue: 0)] }
    if options.publishers >= queues.count { return [route(toQueue: index % queues.count)] }
    return stride(from: index, to: queues.count, by: options.publishers).map(route(toQueue:))
  }

  /// Indices of the queues that consumer `index` consumes.
  func queues(ofConsumer index: Int) -> [Int] {
    options.consumers >= queues.count
      ? [index % queues.count]
      : Array(stride(from: index, to: queues.count, by: options.consumers))
  }

  /// Whether more than one consumer takes from a queue, so that each sees only a part.
  var sharesQueues: Bool { options.consumers > queues.count }

  // MARK: Declaring

  /// Declares what is missing. A queue that is there already is used as it is.
  mutating func declare(on connection: WireConnection) throws {
    try connection.openChannel(Self.channel)
    try declareExchange(on: connection)
    for (index, queue) in queues.enumerated() {
      try declareQueue(queue, on: connection)
      guard options.exchangeType != .default else { continue }
      try connection.call(.queueBind(binding(ofQueue: index)), channel: Self.channel)
    }
    try bindWhatDoesNotMatch(on: connection)
  }

  /// Deletes what `declare` has created.
  func delete(on connection: WireConnection) throws(ClientError) {
    try connection.openChannel(Self.channel)
    for queue in createdQueues {
      try connection.call(.queueDelete(QueueDelete(queue: queue)), channel: Self.channel)
    }
    if hasCreatedExchange {
      try connection.call(
        .exchangeDelete(ExchangeDelete(exchange: exchange)), channel: Self.channel)
    }
  }

  private mutating func declareExchange(on connection: WireConnection) throws(ClientError) {
    guard options.exchangeType != .default, !exchange.hasPrefix("amq.") else { return }
    let type = Name(options.exchangeType.rawValue)
    let passive = ExchangeDeclare(exchange: exchange, type: type, passive: true)
    if try answer(to: .exchangeDeclare(passive), on: connection) != nil { return }
    var declare = ExchangeDeclare(exchange: exchange, type: type, durable: options.isDurable)
    if options.delayMax > 0 {
      declare.type = "x-delayed-message"
      declare.arguments = ["x-delayed-type": .string(options.exchangeType.rawValue)]
    }
    try connection.call(.exchangeDeclare(declare), channel: Self.channel)
    hasCreatedExchange = true
  }

  private mutating func declareQueue(_ queue: Name, on connection: WireConnection) throws {
    let passive = QueueDeclare(queue: queue, passive: true)
    if case .queueDeclareOk(let found)? = try answer(to: .queueDeclare(passive), on: connection) {
      guard options.publishers == 0 || found.messageCount == 0 else {
        throw Failure(
          "queue \(queue) has \(found.messageCount) messages already: purge it or choose another",
          code: .usage)
      }
      return
    }
    var declare = QueueDeclare(queue: queue, durable: options.isDurable)
    declare.arguments = options.arguments
    if !options.queueType.isEmpty {
      declare.arguments.entries.append(
        FieldTable.Entry(name: "x-queue-type", value: .string(options.queueType)))
    }
    try connection.call(.queueDeclare(declare), channel: Self.channel)
    createdQueues.append(queue)
  }

  /// The answer to a passive declaration; nil if there is no such thing. The channel is open again
  /// afterwards.
  private func answer(
    to passive: Method, on connection: WireConnection
  ) throws(ClientError) -> Method? {
    do {
      return try connection.call(passive, channel: Self.channel)
    } catch .channelClosed(_, let reason) where reason.code == ReplyCode.notFound.rawValue {
      try connection.openChannel(Self.channel)
      return nil
    }
  }

  private func bindWhatDoesNotMatch(on connection: WireConnection) throws(ClientError) {
    for number in 0..<options.bindings {
      var bind = QueueBind(queue: queues[number % queues.count], exchange: exchange)
      switch options.exchangeType {
      case .topic: bind.routingKey = Name("other.\(number).*.#")
      case .headers: bind.arguments = ["x-match": .string("all"), "other": .int32(Int32(number))]
      case .default, .direct, .fanout: bind.routingKey = Name("other-\(number)")
      }
      let isLastOfBatch = (number + 1) % Self.bindingBatch == 0 || number + 1 == options.bindings
      bind.noWait = !isLastOfBatch
      if isLastOfBatch {
        try connection.call(.queueBind(bind), channel: Self.channel, timeoutMilliseconds: 600_000)
      } else {
        connection.send(.queueBind(bind), channel: Self.channel)
      }
    }
  }

  private func binding(ofQueue index: Int) -> QueueBind {
    var bind = QueueBind(queue: queues[index], exchange: exchange)
    switch options.exchangeType {
    case .topic: bind.routingKey = Name(topicPrefix(index) + ".*")
    case .headers: bind.arguments = ["x-match": .string("all"), "queue": .int32(Int32(index))]
    case .default, .direct: bind.routingKey = queues[index]
    case .fanout: break
    }
    return bind
  }

  private func route(toQueue index: Int) -> BenchRoute {
    switch options.exchangeType {
    case .default, .direct:
      BenchRoute(exchange: exchange, routingKey: queues[index], headers: nil)
    case .fanout:
      BenchRoute(exchange: exchange, routingKey: "", headers: nil)
    case .topic:
      BenchRoute(
        exchange: exchange, routingKey: Name(topicPrefix(index) + ".message"), headers: nil)
    case .headers:
      BenchRoute(exchange: exchange, routingKey: "", headers: ["queue": .int32(Int32(index))])
    }
  }

  private func topicPrefix(_ index: Int) -> String {
    "bench." + Figures.right(String(index), String(queues.count - 1).count, fill: "0")
  }
}
