import Client

/// The work of `martlet redrive`. Messages are taken one by one, published and acknowledged in transactions of
/// some; what is to stay is not answered, and goes back into its place when the channel closes.
final class Redriving {
  /// A message that is on its way out of the queue.
  private struct Departure {
    let tag: UInt64
    let message: Message
    let exchange: Name
    let origin: DeadLetterOrigin
  }

  private let session: Session
  private let queue: Name
  /// Nil for home.
  private let target: Name?
  private let countMax: Int?
  private let condition: MessageFilter?
  private let keepsHistory: Bool
  private let progress: Progress
  private var batch: [Departure] = []
  private var batchBytes = 0
  /// Whether exchanges are there, as far as they were looked at.
  private var exchanges: [Name: Bool] = [:]
  /// Why messages stay, and how many.
  private var stays: [String: Int] = [:]
  private var filteredCount = 0

  /// Of a transaction, which may have one message more.
  private static let batchCountMax = 32
  private static let batchBytesMax = 1 << 20
  /// Different reasons that are told.
  private static let reasonsMax = 10
  private static let exchangesMax = 1000

  init(_ invocation: Invocation, _ session: Session, _ condition: MessageFilter?) {
    self.session = session
    self.condition = condition
    queue = invocation[Redrive.queue]
    target = invocation[Redrive.to]
    countMax = invocation[Redrive.count]
    keepsHistory = invocation[Redrive.keepsHistory]
    progress = Progress("redrove", session.notes)
  }

  func run() async throws(Failure) -> ExitCode {
    let queue = queue
    let ready = try await session.ask { channel throws(ClientError) in
      let state = try await channel.declareQueue(queue, passive: true)
      try await channel.beginTransactions()
      return state.messageCount
    }
    let failure = await progress.shown { () async -> Failure? in
      do throws(Failure) {
        try await redrive(atMost: ready)
        return nil
      } catch {
        return error
      }
    }
    conclude(isWhole: failure == nil)
    if let failure { throw failure }
    if !stays.isEmpty { return .undelivered }
    return progress.count < countMax ?? 0 ? .empty : .success
  }

  /// Goes over the messages that were ready at the start; what is sent may come back behind them.
  private func redrive(atMost ready: Int) async throws(Failure) {
    let queue = queue
    var taken = 0
    while taken < ready, progress.count + batch.count < countMax ?? .max {
      let got = try await session.ask { channel throws(ClientError) in
        try await channel.get(queue)
      }
      // Others took the rest.
      guard let (delivery, _) = got else { break }
      taken += 1
      try await look(at: delivery)
      if batch.count >= Self.batchCountMax || batchBytes >= Self.batchBytesMax {
        try await commitBatch()
      }
    }
    try await commitBatch()
  }

  private func look(at delivery: Delivery) async throws(Failure) {
    let message = delivery.message
    if let condition, !condition.matches(message) {
      filteredCount += 1
      return
    }
    guard let origin = DeadLetterOrigin(message.properties.headers) else {
      return stay("no header x-death says where from")
    }
    let exchange = target ?? origin.exchange
    guard try await exists(exchange) else {
      return stay(#"there is no exchange "\#(exchange)""#)
    }
    let user = message.properties.userID
    guard user == nil || user == Name(session.connection.url.user) else {
      return stay("the property user_id names another user")
    }
    batch.append(
      Departure(tag: delivery.tag, message: message, exchange: exchange, origin: origin))
    batchBytes += message.body.count
  }

  private func exists(_ exchange: Name) async throws(Failure) -> Bool {
    if exchange.isEmpty { return true }
    if let known = exchanges[exchange] { return known }
    let isThere = try await session.exists { channel throws(ClientError) in
      try await channel.declareExchange(exchange, type: "direct", passive: true)
    }
    if exchanges.count >= Self.exchangesMax { exchanges = [:] }
    exchanges[exchange] = isThere
    return isThere
  }

  /// Sends the batch as one; if that cannot be, each message by itself, so that those stay that no queue takes.
  private func commitBatch() async throws(Failure) {
    let batch = batch
    self.batch = []
    batchBytes = 0
    if batch.isEmpty { return }
    if try await commit(batch) { return }
    for departure in batch where try await !commit([departure]) {
      let key = departure.origin.keys[0]
      stay(
        departure.exchange.isEmpty
          ? #"there is no queue "\#(key)""#
          : #"no queue takes what exchange "\#(departure.exchange)" routes with key "\#(key)""#)
    }
  }

  /// Returns whether it has happened.
  private func commit(_ batch: [Departure]) async throws(Failure) -> Bool {
    let keepsHistory = keepsHistory
    let isDone = try await session.ask { channel throws(ClientError) in
      for departure in batch {
        let origin = departure.origin
        try await channel.publish(
          departure.message.body, to: departure.exchange, key: origin.keys[0],
          properties: origin.properties(
            departure.message.properties, keepingHistory: keepsHistory),
          mandatory: true)
        try channel.ack(departure.tag)
      }
      do throws(ClientError) {
        try await channel.commit()
        return true
      } catch .rolledBack {
        return false
      }
    }
    if isDone { for _ in batch { progress.add() } }
    return isDone
  }

  private func stay(_ reason: String) {
    let isTold = stays[reason] != nil || stays.count < Self.reasonsMax
    stays[isTold ? reason : "for other reasons of these kinds", default: 0] += 1
  }

  private static func staying(_ count: Int) -> String {
    "\(HumanWords.count(count, "message")) \(count == 1 ? "stays" : "stay")"
  }

  private func conclude(isWhole: Bool) {
    let place = target.map { exchange in
      exchange.isEmpty ? "the default exchange" : #"exchange "\#(exchange)""#
    }
    let summary = progress.summary(to: place ?? "where they came from")
    session.notes.say(
      isWhole || progress.count > 0
        ? #"redrove \#(summary), from queue "\#(queue)""# : "redrove none")
    if filteredCount > 0 {
      session.notes.say("\(Self.staying(filteredCount)): the filter is not true")
    }
    for (reason, count) in stays.sorted(by: { $0.value > $1.value }) {
      Console.complain(
        "\(Self.staying(count)): \(reason)", path: ["martlet", "redrive"])
    }
  }
}
