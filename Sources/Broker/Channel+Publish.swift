import AMQP
import Base
import Filters
import Journal

/// The publishes of a channel that are not confirmed yet. A turn's publishes are one group: they
/// wait for the same position of the log.
struct ConfirmState: ~Copyable {
  struct Group: BitwiseCopyable {
    /// The last publish of the group.
    var sequence: UInt64
    /// Durable once the log is durable up to here.
    var position: Int
  }

  /// Publishes so far; the first is 1.
  var published: UInt64 = 0
  var confirmed: UInt64 = 0
  /// Groups that wait, in order.
  var waiting = Ring<Group>()
  /// Those above `confirmed` that were refused, in order.
  var refused: [UInt64] = []
  /// A queue had no room for the last publish.
  var isLastRefused = false
  /// The last publish is being stored between turns; it is not confirmed before that is over.
  var isStoring = false
  /// A message of this turn went into the log.
  var isDurable = false
  /// The channel is in the broker's list of channels with publishes of this turn.
  var isNoted = false

  /// The last publish up to this one that was not refused; `confirmed` if all behind that were. Those up to
  /// this one are forgotten.
  mutating func lastAccepted(upTo sequence: UInt64) -> UInt64 {
    var last = sequence
    let count = (0..<refused.count).partition { refused[$0] <= sequence }
    for number in refused[..<count].reversed() {
      guard number == last else { break }
      last -= 1
    }
    refused.removeSubrange(..<count)
    return max(last, confirmed)
  }
}

extension Channel {
  /// Routes a message to its queues. `names` is exchange and routing key, each with its length in
  /// front; `properties` the flags and the values behind them.
  public func publish(
    names: RawSpan, isMandatory: Bool, properties: RawSpan, body: RawSpan
  ) throws(BrokerError) {
    if mode != .plain {
      if let transaction {
        return try add(names, isMandatory, properties, body, nil, to: transaction)
      }
      noteConfirm()
    }
    let size = properties.byteCount
    let flags =
      size >= 2
      ? UInt16(bigEndian: properties.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt16.self)) : 1
    if flags == PropertyFlags.deliveryMode.rawValue, size == 3 {
      let mode = properties.unsafeLoad(fromByteOffset: 2, as: UInt8.self)
      let route = try route(names)
      guard !route.needsMessage else {
        return try publishChecked(names, isMandatory, properties, body, nil)
      }
      try store(
        names, properties, body, in: route, isPersistent: mode == 2, isMandatory: isMandatory)
    } else if flags == 0, size == 2 {
      let route = try route(names)
      guard !route.needsMessage else {
        return try publishChecked(names, isMandatory, properties, body, nil)
      }
      try store(
        names, properties, body, in: route, isPersistent: false, isMandatory: isMandatory)
    } else {
      try publishChecked(names, isMandatory, properties, body, nil)
    }
  }

  /// The whole of it: properties that the broker acts on, headers and filters that route. The body is the draft's if
  /// there is one.
  func publishChecked(
    _ names: RawSpan, _ isMandatory: Bool, _ properties: RawSpan, _ body: RawSpan,
    _ draft: RecordDraft?
  ) throws(BrokerError) {
    let block = try checked(properties)
    if block.flags.contains(.replyTo),
      try publishWithReplyTo(names, isMandatory, block, properties, body, draft)
    {
      return
    }
    let route = try route(names)
    if block.headers.isEmpty, !route.needsMessage {
      try store(
        names, properties, body, draft, in: route, isPersistent: block.isPersistent,
        isMandatory: isMandatory)
    } else {
      try publishWithHeaders(names, isMandatory, block, properties, body, draft, route)
    }
  }

  /// The properties of a message, if they are what a publisher may say.
  func checked(_ properties: RawSpan) throws(BrokerError) -> PropertyBlock {
    let block: PropertyBlock
    do throws(MalformedInput) {
      block = try PropertyBlock(properties)
    } catch {
      throw .malformedProperties(reason: error.reason)
    }
    try checkUser(block, properties)
    try checkExpiration(block, properties)
    return block
  }

  private func publishWithHeaders(
    _ names: RawSpan, _ isMandatory: Bool, _ block: PropertyBlock, _ properties: RawSpan,
    _ body: RawSpan, _ draft: RecordDraft?, _ route: Route
  ) throws(BrokerError) {
    let (wide, stripped) = try routeWithHeaders(names, block, properties, body, route)
    // What a stream refuses is refused before anything is stored.
    if wide.keepingCount > 0 { _ = try ProducerMark(in: properties) }
    if vhost.isTraced {
      broker.firehose.published(names: names, block, properties, body, to: wide, on: self)
    }
    if !wide.delaying.isEmpty {
      let isDelayed = try storeDelayed(
        names, properties, body, stripped == nil ? draft : nil, in: wide,
        isPersistent: block.isPersistent)
      guard !isDelayed else { return }
    }
    guard let stripped else {
      return try storeRemembered(
        names, properties, body, draft, in: wide, isPersistent: block.isPersistent,
        isMandatory: isMandatory)
    }
    try Self.withBytes(stripped) { (bytes) throws(BrokerError) in
      try storeRemembered(
        names, bytes.bytes, body, draft, in: wide, isPersistent: block.isPersistent,
        isMandatory: isMandatory)
    }
  }

  /// Stores the message where it waits for its time, with all that it came with: it is routed then. Returns
  /// whether that is all that becomes of it.
  private func storeDelayed(
    _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan, _ draft: RecordDraft?,
    in route: Route, isPersistent: Bool
  ) throws(BrokerError) -> Bool {
    if isPersistent { try noteDurable() }
    let isAlone = route.count == 0 && route.keepers.isEmpty && route.delaying.count == 1
    for exchange in route.delaying {
      try broker.storeDelayed(
        names: names, properties: properties, body: body, isAlone ? draft : nil, at: exchange,
        isPersistent: isPersistent)
    }
    guard route.count == 0, route.keepers.isEmpty else { return false }
    broker.remember(route.remembrances)
    return true
  }

  /// The route of a message that has headers, or whose route needs it, and its properties without blind
  /// copies if it has some. `route` is that of all messages with these names.
  func routeWithHeaders(
    _ names: RawSpan, _ block: PropertyBlock, _ properties: RawSpan, _ body: RawSpan,
    _ route: Route
  ) throws(BrokerError) -> (Route, stripped: [UInt8]?) {
    let headers = properties.extracting(block.headers)
    let selected = try SenderSelection(in: headers, keysMax: broker.limits.routingKeysMax)
    guard route.needsMessage || selected != nil else { return (route, nil) }
    let (exchange, key) = RouteMemo.split(names)
    let keys = selected?.keys(with: key) ?? [key]
    let message = FilteredMessage(
      names: names, properties: properties, headers: block.headers, body: body)
    let wide = try vhost.route(vhost.publishable(exchange), keys: keys, message)
    guard let selected, selected.hasBlind else { return (wide, nil) }
    return (wide, SenderSelection.strippingBlind(from: properties))
  }

  static func withBytes(
    _ array: [UInt8], _ body: (UnsafeRawBufferPointer) throws(BrokerError) -> Void
  ) throws(BrokerError) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: array.count, alignment: 1)
    defer { copy.deallocate() }
    copy.copyBytes(from: array)
    try body(UnsafeRawBufferPointer(copy))
  }

  private func checkUser(_ block: PropertyBlock, _ properties: RawSpan) throws(BrokerError) {
    guard block.flags.contains(.userID) else { return }
    let given = Name(copying: properties.extracting(block.userID))
    guard given == peer.user else { throw .userMismatch(given: given, user: peer.user) }
  }

  private func checkExpiration(_ block: PropertyBlock, _ properties: RawSpan) throws(BrokerError) {
    guard block.flags.contains(.expiration) else { return }
    let value = properties.extracting(block.expiration)
    guard let reason = Expiration.problem(value) else { return }
    throw .refusedExpiration(Name(copying: value).description, reason: reason)
  }

  /// Replaces the pseudo reply queue by the address of this channel's consumer and publishes that.
  /// Returns false when the message asks for no such reply.
  private func publishWithReplyTo(
    _ names: RawSpan, _ isMandatory: Bool, _ block: PropertyBlock, _ properties: RawSpan,
    _ body: RawSpan, _ draft: RecordDraft?
  ) throws(BrokerError) -> Bool {
    guard DirectReplies.isQueueName(Name(copying: properties.extracting(block.replyTo))) else {
      return false
    }
    guard let replies else { throw .repliesAreNotConsumed }
    let rewritten = DirectReplies.rewrite(properties, block.replyTo, to: replies.address)
    try Self.withBytes(rewritten) { (bytes) throws(BrokerError) in
      try publishChecked(names, isMandatory, bytes.bytes, body, draft)
    }
    return true
  }

  /// The route of any message, unless it says that it needs one.
  @inline(__always)
  func route(_ names: RawSpan) throws(BrokerError) -> Route {
    if let route = lastRoute.find(names, generation: vhost.bindingGeneration) { return route }
    return try findRoute(names)
  }

  @inline(never)
  private func findRoute(_ names: RawSpan) throws(BrokerError) -> Route {
    let route = try vhost.cachedRoute(names)
    lastRoute.remember(names, route, generation: vhost.bindingGeneration)
    return route
  }

  /// Copies the message into the log once and puts it into the queues.
  @inline(__always)
  private func store(
    _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan, in route: Route,
    isPersistent: Bool, isMandatory: Bool
  ) throws(BrokerError) {
    // From 1 to the limit, and without settings, in one comparison.
    guard UInt(bitPattern: route.plainCount &- 1) < UInt(WideStore.queuesMax) else {
      return try storeRarely(
        names, properties, body, nil, in: route, isPersistent: isPersistent,
        isMandatory: isMandatory)
    }
    let isDurable = isPersistent && route.durableCount > 0
    if isDurable { try noteDurable() }
    broker.store(
      names: names, properties: properties, body: body, in: route, isDurable: isDurable)
  }

  /// The same for a body that may be a draft's.
  @inline(__always)
  func store(
    _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan, _ draft: RecordDraft?,
    in route: Route, isPersistent: Bool, isMandatory: Bool
  ) throws(BrokerError) {
    let isMarked = MessageView.isMarked(properties)
    guard let draft, !isMarked else {
      if isMarked {
        return try storeRarely(
          names, properties, body, draft, in: route, isPersistent: isPersistent,
          isMandatory: isMandatory)
      }
      return try store(
        names, properties, body, in: route, isPersistent: isPersistent, isMandatory: isMandatory)
    }
    guard route.plainCount > 0, route.plainCount <= WideStore.queuesMax else {
      return try storeRarely(
        names, properties, body, draft, in: route, isPersistent: isPersistent,
        isMandatory: isMandatory)
    }
    let isDurable = isPersistent && route.durableCount > 0
    if isDurable { try noteDurable() }
    broker.store(draft, names: names, properties: properties, in: route, isDurable: isDurable)
  }

  /// A message of this turn goes into the log.
  @inline(__always)
  private func noteDurable() throws(BrokerError) {
    if let reason = broker.journal.failure { throw .journalFailed(reason: reason) }
    confirms.isDurable = true
  }

  /// To no queue, or to very many, or to some that have settings; or the message is a marked one.
  @inline(never)
  private func storeRarely(
    _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan, _ draft: RecordDraft?,
    in route: Route, isPersistent: Bool, isMandatory: Bool
  ) throws(BrokerError) {
    guard route.count > 0 else {
      return unroutable(names, properties, body, draft, isMandatory: isMandatory)
    }
    let isDurable = route.placeCount(isPersistent: isPersistent) > 0
    if isDurable, let reason = broker.journal.failure {
      throw .journalFailed(reason: reason)
    }
    let isPlain = route.isPlain && !MessageView.isMarked(properties)
    guard isPlain || route.count > WideStore.queuesMax else {
      if isDurable { confirms.isDurable = true }
      let hasRoom = try broker.storePublished(
        names: names, properties: properties, body: body, draft, in: route,
        isPersistent: isPersistent)
      if !hasRoom { refuseLast() }
      return
    }
    confirms.isStoring = true
    let content: WideStore.Content =
      if let draft { .draft(draft) } else { .bytes(body.withUnsafeBytes { Array($0) }) }
    let store = WideStore(
      self, route, names: names, properties: properties, content: content,
      isPersistent: isPersistent)
    broker.chores.begin(store, for: peer)
  }

  /// All queues of a wide route have the last publish, or some refused it.
  func storeEnded(isDurable: Bool, isRefused: Bool) {
    confirms.isStoring = false
    guard isConfirming, !isClosed else { return }
    if isRefused { refuseLast() }
    if isDurable { confirms.isDurable = true }
    noteUnconfirmed()
  }

  func unroutable(
    _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan, _ draft: RecordDraft?,
    isMandatory: Bool
  ) {
    if prolongs(names) { return }
    if let token = DirectReplies.token(names), let channel = vhost.replyChannel(token),
      channel.deliverReply(names: names, properties: properties, body: body, draft)
    {
      return
    }
    if ManagementAddress.isOf(names), takeRequest(properties: properties, body: body, draft) {
      return
    }
    guard isMandatory else { return }
    if let draft { return giveBack(draft, names: names, properties: properties) }
    names.withUnsafeBytes { names in
      properties.withUnsafeBytes { properties in
        body.withUnsafeBytes { body in
          outlet.returned(
            names: names, properties: properties, body: body, in: nil, on: self)
        }
      }
    }
  }

  // MARK: Confirms

  @inline(__always)
  func noteConfirm() {
    confirms.published &+= 1
    noteUnconfirmed()
  }

  @inline(__always)
  private func noteUnconfirmed() {
    if !confirms.isNoted {
      confirms.isNoted = true
      broker.noteConfirming(self)
    }
  }

  /// A queue had no room for the last publish. Its publisher is told so at once; what is confirmed later
  /// may name all up to some publish, and does not name this one alone.
  private func refuseLast() {
    confirms.isLastRefused = true
    guard isConfirming else { return }
    outlet.refused(upTo: confirms.published, isMultiple: false, on: self)
    confirms.refused.append(confirms.published)
  }

  /// At the turn's end: the turn's publishes wait for the log, or are confirmed at once. Returns
  /// whether something waits.
  func closeConfirmGroup(at position: Int) -> Bool {
    confirms.isNoted = false
    guard !isClosed else { return false }
    if Sabotage.is(.confirmsBeforeSync) { confirms.isDurable = false }
    let sequence = confirms.published &- (confirms.isStoring ? 1 : 0)
    let waited = confirms.waiting.count > 0
    // What was refused or repeated may have written nothing.
    let waits = confirms.isDurable && position > broker.journal.durablePosition
    confirms.isDurable = false
    if waits || waited {
      confirms.waiting.append(
        ConfirmState.Group(sequence: sequence, position: position))
      return !waited
    }
    confirm(upTo: sequence &+ (Sabotage.is(.confirmsOneTooMany) ? 1 : 0))
    return false
  }

  /// The log is durable up to `position`. Returns whether something still waits.
  func confirmDurable(upTo position: Int) -> Bool {
    guard !isClosed else { return false }
    var sequence = confirms.confirmed
    while let group = confirms.waiting.first, group.position <= position {
      sequence = confirms.waiting.removeFirst().sequence
    }
    confirm(upTo: sequence)
    return !confirms.waiting.isEmpty
  }

  /// The log failed: nothing that waits will be confirmed.
  func refuseAll() {
    confirms.isNoted = false
    confirms.isDurable = false
    guard !isClosed, confirms.published > confirms.confirmed else { return }
    outlet.refused(
      upTo: confirms.published, isMultiple: confirms.published - confirms.confirmed > 1, on: self)
    confirms.confirmed = confirms.published
    confirms.refused.removeAll()
    confirms.waiting.removeAll()
  }

  private func confirm(upTo sequence: UInt64) {
    guard sequence > confirms.confirmed else { return }
    let last = confirms.refused.isEmpty ? sequence : confirms.lastAccepted(upTo: sequence)
    if last > confirms.confirmed {
      outlet.confirmed(upTo: last, isMultiple: last - confirms.confirmed > 1, on: self)
    }
    confirms.confirmed = sequence
  }
}
