import AMQP
import Base
import Journal
import Testbed
import Testing

@testable import Broker

/// Does random things to a broker and to its model, and compares the two after each.
final class BrokerModelRun {
  private(set) var broker: TestBroker
  let model = BrokerModel()
  private var random: SeededRandom
  private let seed: UInt64
  private var step = 0
  private var clients: [Int: TestClient] = [:]
  private var channels: [ObjectIdentifier: Channel] = [:]
  private var nextClient = 1
  private var nextText = 1
  private let queueNames: [Name]
  private let settings: Journal.Settings

  init(
    seed: UInt64, broker: TestBroker, settings: Journal.Settings = .quick, queueCount: Int = 4
  ) throws {
    self.settings = settings
    self.seed = seed
    self.broker = broker
    random = SeededRandom(seed)
    queueNames = (0..<queueCount).map { Name("q\($0)") }
    while model.clients.count < 3 { openClient() }
  }

  private var comment: Comment { "seed \(seed), step \(step)" }

  private func fail(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) {
    Issue.record("\(text): seed \(seed), step \(step)", sourceLocation: sourceLocation)
  }

  /// Some changes within one turn, and what must hold after it.
  func doStep() throws {
    step += 1
    try broker.turn { for _ in 0...random.number(0..<3) { try change() } }
    // Durable messages are delivered once the log knows that they may have been.
    if broker.broker.hasWaitingDeliveries { broker.turns { !broker.broker.hasWaitingDeliveries } }
    check()
  }

  // MARK: Changes

  private func change() throws {
    switch random.number(0..<40) {
    case 0..<12: try publish()
    case 12..<15: try consume()
    case 15..<18: try get()
    case 18..<24: try settle()
    case 24: recover()
    case 25, 26: cancel()
    case 27: limit()
    case 28: setFlow()
    case 29, 30: setRoom()
    case 31 where random.isOne(in: 3): try purge()
    case 32 where random.isOne(in: 3): try delete()
    case 33, 34: try declare()
    case 35: closeChannel()
    case 36 where random.isOne(in: 3): closeClient()
    case 37: if model.clients.count < 4 { openClient() }
    default: if let client = client() { openChannel(client) }
    }
  }

  private func publish() throws {
    guard let channel = channel() else { return }
    let isPersistent = random.isOne(in: 2)
    let toAll = random.isOne(in: 4)
    let names = toAll ? Array(model.queues.keys) : [queueNames.randomElement(using: &random)!]
    // Now and then enough to fill blocks and segments.
    let size = random.isOne(in: 12) ? random.number(20_000..<90_000) : random.number(0..<40)
    let text = "\(nextText):" + String(repeating: "x", count: size)
    nextText += 1
    try core(channel).publish(
      text, to: toAll ? "amq.fanout" : "", key: names.first ?? "", isPersistent: isPersistent)
    model.publish(text, to: names, isPersistent: isPersistent)
  }

  private func consume() throws {
    guard let channel = channel(), let queue = queue(for: channel) else { return }
    let isAutomatic = random.isOne(in: 3)
    let priority = random.element([0, 0, 0, 1, -1] as [Int64])!
    let tag = try core(channel).consume(
      queue.name, isAutomatic: isAutomatic, priority: priority)
    model.consume(
      BrokerModel.Consumer(tag, channel, queue, isAutomatic: isAutomatic, priority: priority))
  }

  private func get() throws {
    guard let channel = channel(), let queue = queue(for: channel) else { return }
    let isAutomatic = random.isOne(in: 2)
    let got = try core(channel).take(queue.name, isAutomatic: isAutomatic)
    guard !queue.ready.isEmpty else { return #expect(got == nil, comment) }
    let (entry, tag) = model.take(
      from: queue, channel, consumer: nil, isAutomatic: isAutomatic)
    #expect(got?.text == entry.text, comment)
    #expect(got.map { entry.allows(redelivered: $0.isRedelivered) } == true, comment)
    #expect(got?.tag == tag, comment)
  }

  private func settle() throws {
    guard let channel = channel() else { return }
    let isMultiple = random.isOne(in: 3)
    // Mostly a tag that is outstanding, otherwise any up to one too many.
    let outstanding = channel.pending.randomElement(using: &random)?.tag
    let any = UInt64(random.number(0..<Int(channel.nextTag) + 1))
    let tag = random.isOne(in: 5) ? any : outstanding ?? any
    let requeues = random.isOne(in: 2)
    let isAcknowledgement = random.isOne(in: 2)
    let error = mistake {
      if isAcknowledgement {
        try core(channel).acknowledge(tag, isMultiple: isMultiple)
      } else {
        try core(channel).reject(tag, isMultiple: isMultiple, requeues: requeues)
      }
    }
    let meant = model.pending(channel, tag, isMultiple: isMultiple)
    #expect(error == (meant == nil ? .unknownDelivery(tag) : nil), comment)
    model.settle(channel, meant ?? [], requeues: requeues && !isAcknowledgement)
  }

  private func recover() {
    guard let channel = channel() else { return }
    core(channel).recover()
    model.settle(channel, channel.pending, requeues: true)
  }

  private func cancel() {
    guard let channel = channel(),
      let consumer = random.element(channel.consumers.values.sorted { $0.tag < $1.tag })
    else { return }
    core(channel).cancel(consumer.tag)
    model.cancel(consumer)
  }

  private func limit() {
    guard let channel = channel() else { return }
    let count = random.number(0..<5)
    let isGlobal = random.isOne(in: 3)
    core(channel).setPrefetch(count, isGlobal: isGlobal)
    if isGlobal { channel.sharedPrefetch = count } else { channel.prefetch = count }
  }

  private func setFlow() {
    guard let channel = channel() else { return }
    channel.isFlowing.toggle()
    core(channel).setFlow(channel.isFlowing)
  }

  private func setRoom() {
    guard let client = client() else { return }
    if client.room == 0 {
      client.room = nil
      clients[client.number]?.peer.roomMade()
    } else {
      client.room = random.number(1..<6)
      clients[client.number]?.limitRoom(to: client.room!)
    }
  }

  private func purge() throws {
    guard let channel = channel(), let queue = queue(for: channel) else { return }
    #expect(try core(channel).purge(queue.name) == queue.ready.count, comment)
    queue.ready = []
  }

  private func delete() throws {
    guard let channel = channel(), let queue = queue(for: channel) else { return }
    #expect(try core(channel).delete(queue.name) == queue.ready.count, comment)
    model.delete(queue)
  }

  private func declare() throws {
    let name = queueNames.randomElement(using: &random)!
    guard model.queues[name] == nil, let channel = channel() else { return }
    let isExclusive = random.isOne(in: 5)
    let queue = BrokerModel.Queue(
      name, isDurable: random.number(0..<3) > 0, isAutoDelete: random.isOne(in: 4),
      owner: isExclusive ? channel.client : nil)
    try core(channel).declare(
      name, isDurable: queue.isDurable, isExclusive: isExclusive,
      isAutoDelete: queue.isAutoDelete)
    try core(channel).bind(name, to: "amq.fanout")
    model.declare(queue)
  }

  private func closeChannel() {
    guard let channel = channel() else { return }
    core(channel).close()
    channels[ObjectIdentifier(channel)] = nil
    model.close(channel)
  }

  private func openChannel(_ client: BrokerModel.Client) {
    guard let number = (1...3 as ClosedRange<UInt16>).first(where: { client.channels[$0] == nil })
    else { return }
    let channel = BrokerModel.Channel(number, client)
    channels[ObjectIdentifier(channel)] = clients[client.number]!.open(number)
    model.open(channel)
  }

  private func closeClient() {
    guard let client = client() else { return }
    clients.removeValue(forKey: client.number)!.close()
    for channel in client.channels.values { channels[ObjectIdentifier(channel)] = nil }
    model.close(client)
  }

  private func openClient() {
    let client = BrokerModel.Client(nextClient)
    nextClient += 1
    let core = broker.connect()
    core.observe { [unowned self] event in happened(event, to: client) }
    clients[client.number] = core
    model.open(client)
    openChannel(client)
  }

  // MARK: Choosing

  private func client() -> BrokerModel.Client? {
    random.element(model.clients.values.sorted { $0.number < $1.number })
  }

  private func channel() -> BrokerModel.Channel? {
    client().flatMap { random.element($0.channels.values.sorted { $0.number < $1.number }) }
  }

  /// A queue that is not another connection's own.
  private func queue(for channel: BrokerModel.Channel) -> BrokerModel.Queue? {
    random.element(
      model.queues.values.filter { $0.owner == nil || $0.owner === channel.client }
        .sorted { $0.name < $1.name })
  }

  private func core(_ channel: BrokerModel.Channel) -> Channel {
    channels[ObjectIdentifier(channel)]!
  }

  // MARK: What the broker does by itself

  private func happened(_ event: Event, to client: BrokerModel.Client) {
    switch event {
    case .delivered(let delivery): delivered(delivery, to: client)
    case .cancelled(let tag, on: let number):
      let consumer = model.toldEnds.first {
        $0.tag == tag && $0.channel.number == number && $0.channel.client === client
      }
      // The broker tells while it deletes, the model knows only then.
      if let consumer { model.told(consumer) } else { early.append((client, number, tag)) }
    default: fail("unexpected \(event)")
    }
  }

  private var early: [(client: BrokerModel.Client, channel: UInt16, tag: Name)] = []

  private func delivered(_ delivery: Delivery, to client: BrokerModel.Client) {
    guard let channel = client.channels[delivery.channel],
      let consumer = channel.consumers[delivery.consumer]
    else { return fail("a delivery to nobody") }
    let queue = consumer.queue
    guard consumer.canTake else { return fail("a delivery beyond the limits") }
    guard !queue.ready.isEmpty else { return fail("a delivery out of nothing") }
    if queue.consumers.contains(where: {
      $0.priority > consumer.priority && $0.canTake && !isTurnKept(besides: $0)
    }) {
      fail("a delivery past a higher priority")
    }
    let (entry, tag) = model.take(
      from: queue, channel, consumer: consumer, isAutomatic: consumer.isAutomatic)
    if entry.text != delivery.text { fail("\(delivery.text) instead of \(entry.text)") }
    if !entry.allows(redelivered: delivery.isRedelivered) { fail("redelivered is not the truth") }
    if tag != delivery.tag { fail("tag \(delivery.tag) instead of \(tag)") }
  }

  /// A delivery that the consumer's channel may still have out is kept for another of its consumers, whose
  /// message is being read back.
  private func isTurnKept(besides consumer: BrokerModel.Consumer) -> Bool {
    guard consumer.channel.sharedPrefetch > 0 else { return false }
    return broker.vhost.destinations.values.contains { queue in
      guard let waiter = (queue as? Queue)?.waiter, waiter.tag != consumer.tag else { return false }
      return waiter.channel.consumers[consumer.tag] != nil
    }
  }

  // MARK: Checks

  private func check() {
    for (client, number, tag) in early {
      let consumer = model.toldEnds.first {
        $0.tag == tag && $0.channel.number == number && $0.channel.client === client
      }
      if let consumer { model.told(consumer) } else { fail("\(tag) was cancelled without cause") }
    }
    early = []
    let untold = model.toldEnds.filter { model.clients[$0.channel.client.number] != nil }
    if !untold.isEmpty { fail("\(untold.map(\.tag)) were not told") }
    for consumer in model.toldEnds { model.told(consumer) }
    #expect(Set(broker.vhost.destinations.keys) == Set(model.queues.keys), comment)
    for queue in model.queues.values {
      guard let core = broker.queue(queue.name) else { continue }
      #expect(core.readyCount == queue.ready.count, comment)
      #expect(core.unacknowledgedCount == model.unacknowledgedCount(queue), comment)
      #expect(core.consumerCount == queue.consumers.count, comment)
      if !queue.ready.isEmpty, queue.consumers.contains(where: \.canTake) {
        fail("\(queue.name) has messages and a consumer for them")
      }
    }
    #expect(broker.referenceCount == model.entryCount, comment)
  }

  /// All messages are taken one way or another, and nothing is held.
  func finish() throws {
    for client in clients.values { client.close() }
    for client in Array(model.clients.values) { model.close(client) }
    clients = [:]
    channels = [:]
    broker.turn()
    check()
    let channel = broker.connect().open()
    for queue in model.queues.values {
      let taken = try channel.drain(queue.name)
      #expect(taken.map(\.text) == queue.ready.map(\.text), comment)
      expectTruth(taken, queue.ready)
    }
    broker.expectNothingHeld()
  }

  // MARK: Crashes and restarts

  /// Compares what a crash would leave behind now with what the model says.
  func crash() throws {
    broker.quietTurn()
    check()
    try expectContents(broker.crashed(settings: settings), model.afterCrash())
  }

  /// Goes on with a broker that began again, in order or from what a crash left.
  func restart(inOrder: Bool) throws {
    if !inOrder { broker.quietTurn() }
    for client in clients.values { client.observe { _ in } }
    let next =
      inOrder ? try broker.restarted(settings: settings) : try broker.crashed(settings: settings)
    #expect(next.recovery.wasClean == inOrder, comment)
    if inOrder {
      model.restart()
    } else {
      model.crash()
    }
    broker = next
    clients = [:]
    channels = [:]
    check()
    while model.clients.count < 3 { openClient() }
  }

  func expectContents(
    _ broker: TestBroker, _ contents: [Name: [BrokerModel.Entry]]
  ) throws {
    #expect(Set(broker.vhost.destinations.keys) == Set(contents.keys), comment)
    #expect(broker.recoveredCount == contents.values.reduce(0) { $0 + $1.count }, comment)
    #expect(broker.vhost.bindings == contents.count, comment)
    let channel = broker.connect().open()
    for (name, entries) in contents where broker.queue(name) != nil {
      #expect(broker.queue(name)?.readyCount == entries.count, comment)
      let taken = try channel.drain(name)
      #expect(taken.map(\.text) == entries.map(\.text), comment)
      expectTruth(
        taken,
        entries.map { entry in
          var entry = entry
          entry.mayBeRedelivered = true
          return entry
        })
    }
    broker.expectNothingHeld()
    broker.close()
  }

  private func expectTruth(_ taken: [Delivery], _ entries: [BrokerModel.Entry]) {
    for (delivery, entry) in zip(taken, entries) {
      #expect(entry.allows(redelivered: delivery.isRedelivered), comment)
    }
  }
}
