import AMQP
import Base
import Journal

/// Transactions: what a client publishes and acknowledges waits, and takes effect as one at its commit. What is
/// wrong with a message or with an acknowledgement is told at once; where messages go is found at the commit.
extension Channel {
  /// Everything since the last commit or rollback happens, whole or not at all, also after a crash. Where that
  /// takes more than this turn, the peer `isWorking`, and what goes wrong is `Outlet.commitFailed`.
  /// Nil if it was rolled back, which `Outlet.commitRolledBack` tells of one that has taken more.
  public func commit() throws(BrokerError) -> Committed? {
    guard let transaction else { throw .isNotTransactional }
    if let tag = transaction.lostTag {
      transaction.forget(keeping: true)
      throw .lockExpired(tag)
    }
    guard !transaction.isEmpty else { return .now }
    let commit = TransactionCommit(self, transaction)
    broker.chores.begin(commit, for: peer)
    return try commit.result()
  }

  /// Nothing of it happens: deliveries that were answered are unacknowledged again.
  public func rollback() throws(BrokerError) {
    guard let transaction else { throw .isNotTransactional }
    transaction.forget(keeping: true)
  }

  // MARK: Messages

  /// As `publish`, but for what becomes of it.
  func add(
    _ names: RawSpan, _ isMandatory: Bool, _ properties: RawSpan, _ body: RawSpan,
    _ draft: RecordDraft?, to transaction: Transaction
  ) throws(BrokerError) {
    let block = try checked(properties)
    if block.flags.contains(.replyTo),
      DirectReplies.isQueueName(Name(copying: properties.extracting(block.replyTo)))
    {
      guard let replies else { throw .repliesAreNotConsumed }
      let rewritten = DirectReplies.rewrite(properties, block.replyTo, to: replies.address)
      return try Self.withBytes(rewritten) { (bytes) throws(BrokerError) in
        try add(names, isMandatory, bytes.bytes, body, draft, to: transaction)
      }
    }
    // Whether one may publish there, and that is known in no time if it was just done.
    let route = try route(names)
    // Whoever works on a message needs its time before the commit.
    if route.count == 0, prolongs(names) { return }
    if !block.headers.isEmpty {
      _ = try SenderSelection(
        in: properties.extracting(block.headers), keysMax: broker.limits.routingKeysMax)
    }
    try transaction.add(
      names: names, properties: properties, body: body, draft, isPersistent: block.isPersistent,
      isMandatory: isMandatory, hasHeaders: !block.headers.isEmpty)
  }

  /// Where a message of a commit goes, and its properties without blind copies if it has some. An exchange
  /// that has gone since it was published leads nowhere.
  func routeAtCommit(
    _ message: Transaction.Message, _ content: Transaction.Content
  ) throws(BrokerError) -> (Route, stripped: [UInt8]?) {
    let (names, properties) = (content.names.bytes, content.properties.bytes)
    do throws(BrokerError) {
      let route = try route(names)
      guard route.needsMessage || message.hasHeaders else { return (route, nil) }
      let found = try routeWithHeaders(
        names, Self.block(properties), properties, content.body.bytes, route)
      if found.0.keepingCount > 0 { _ = try ProducerMark(in: properties) }
      return found
    } catch {
      if case .notFound = error { return (Route.nowhere, nil) }
      if case .isInternal = error { return (Route.nowhere, nil) }
      throw error
    }
  }

  /// A message of a commit that happens is shown to whoever traces.
  func traceAtCommit(
    _ message: Transaction.Message, _ content: Transaction.Content, to route: Route
  ) {
    guard vhost.isTraced else { return }
    let properties = content.properties.bytes
    broker.firehose.published(
      names: content.names.bytes, Self.block(properties), properties, content.body.bytes,
      to: route, on: self)
  }

  private static func block(_ properties: RawSpan) -> PropertyBlock {
    do throws(MalformedInput) {
      return try PropertyBlock(properties)
    } catch {
      invariantFailed("properties that were read when they came are malformed")
    }
  }

  /// Stores a message of a commit. That there is room for it was looked at, and there are all lanes.
  func storeAtCommit(
    _ message: Transaction.Message, _ content: Transaction.Content, properties: RawSpan,
    in route: Route
  ) {
    let (names, body, draft) = (content.names.bytes, content.body.bytes, message.draft)
    guard route.count > 0 else {
      return unroutable(names, properties, body, draft, isMandatory: message.isMandatory)
    }
    guard route.isPlain, !MessageView.isMarked(properties) else {
      do throws(BrokerError) {
        // A queue that is full now, since dead letters of this commit went there, has no more.
        _ = try broker.storePublished(
          names: names, properties: properties, body: body, draft, in: route,
          isPersistent: message.isPersistent)
      } catch {
        invariantFailed("a commit has no lane for a message: \(error)")
      }
      return
    }
    let isDurable = route.placeCount(isPersistent: message.isPersistent) > 0
    if let draft {
      broker.store(draft, names: names, properties: properties, in: route, isDurable: isDurable)
    } else {
      broker.store(
        names: names, properties: properties, body: body, in: route, isDurable: isDurable)
    }
  }

  /// Stores a message where it waits for its time, with all that it came with.
  func storeDelayedAtCommit(
    _ message: Transaction.Message, _ content: Transaction.Content, in route: Route
  ) {
    for exchange in route.delaying {
      do throws(BrokerError) {
        try broker.storeDelayed(
          names: content.names.bytes, properties: content.properties.bytes,
          body: content.body.bytes, nil, at: exchange, isPersistent: message.isPersistent)
      } catch {
        invariantFailed("a commit has no lane for a message that waits: \(error)")
      }
    }
  }

  // MARK: Answers

  /// Notes what is to become of the delivery with this tag, or of all up to it that have no answer yet; tag 0
  /// with `isMultiple` means all.
  func answer(
    _ tag: UInt64, _ isMultiple: Bool, _ kind: Transaction.Answer.Kind, in transaction: Transaction
  ) throws(BrokerError) {
    let isAll = isMultiple && tag == 0
    if !isAll, !unacknowledged.contains(tag), answersLate(tag) { return transaction.lose(tag) }
    guard isAll || unacknowledged.contains(tag) && !transaction.answers(tag) else {
      throw .unknownDelivery(tag)
    }
    guard isMultiple else { return try transaction.add(.init(tag: tag, kind: kind)) }
    // Those that were answered before count for the limit as well, so that this ends.
    let limit = broker.limits.transactionOperationsMax + 1
    var tags: [UInt64] = []
    let last = isAll ? UInt64.max : tag
    _ = unacknowledged.walk(behind: 0, atMost: limit) { if $0.tag <= last { tags.append($0.tag) } }
    for tag in tags where !transaction.answers(tag) {
      try transaction.add(.init(tag: tag, kind: kind))
    }
  }
}
