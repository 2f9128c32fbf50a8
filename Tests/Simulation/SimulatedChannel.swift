import AMQP
import Arbitrary

/// A channel of a client, which does at random what its part is. It goes by what it has heard, not by
/// what the broker has done.
final class SimulatedChannel {
  enum Part: CaseIterable {
    case publisher, consumer, getter, meddler, transactor
  }

  private enum Phase {
    case open, closing
  }

  let number: UInt16
  let part: Part
  private let name: String
  private let connection: SimulatedConnection
  private let scenario: Scenario
  private let options: RunOptions
  private let oracle: Oracle
  private var random: SeededGenerator
  private var phase = Phase.open
  /// Deliveries that were not acknowledged, by their tags.
  private var tags: [UInt64] = []
  /// Those that were acknowledged in the transaction.
  private var answered: [UInt64] = []
  /// Consumers with their queues.
  private var consumers: [(tag: String, queue: String)] = []
  private var consumerNumber = 0
  private let isAutomatic: Bool
  /// Consumers acknowledge in this style.
  private let patience: Int

  private var topology: Topology { scenario.topology }

  init(
    number: UInt16, name: String, part: Part, connection: SimulatedConnection,
    scenario: Scenario, options: RunOptions, oracle: Oracle, random: SeededGenerator
  ) {
    self.number = number
    self.name = name
    self.part = part
    self.connection = connection
    self.scenario = scenario
    self.options = options
    self.oracle = oracle
    self.random = random
    isAutomatic = self.random.oneIn(4)
    patience = self.random.choose([1, 4, 20, 200])
    open()
  }

  private func send(_ action: Command.Action) {
    connection.send(action, on: number)
  }

  private func open() {
    phase = .open
    tags = []
    answered = []
    consumers = []
    send(.openChannel)
    if part == .transactor {
      send(.selectTransactions)
    } else if part == .publisher || random.oneIn(3) {
      send(.confirmSelect)
    }
    if part == .consumer || part == .transactor {
      send(.prefetch(random.choose([0, 1, 3, 10, 50]), isShared: false))
      if random.oneIn(3) { send(.prefetch(random.choose([1, 2, 5, 20]), isShared: true)) }
      for _ in 0..<random.number(1...3) { consume() }
    }
  }

  private func consume() {
    consumerNumber += 1
    let tag = "\(name)-\(number)-\(consumerNumber)"
    let queue = chooseQueue(fleetingOneIn: 4)
    if topology.kind(queue) != .lasting { declare(queue) }
    consumers.append((tag, queue))
    send(
      .consume(
        queue: queue, tag: tag, isAutomatic: isAutomatic,
        priority: random.choose([0, 0, 0, 1, 7, -2])))
  }

  private func chooseQueue(fleetingOneIn: Int) -> String {
    !topology.fleetingQueues.isEmpty && random.oneIn(fleetingOneIn)
      ? random.choose(topology.fleetingQueues) : random.choose(topology.lastingQueues)
  }

  // MARK: Hearing

  func hear(_ event: ClientEvent) {
    switch event {
    case .content(let content):
      switch content.kind {
      case .delivery(let tag, _, _): if !isAutomatic { tags.append(tag) }
      case .got(let tag, _, _): if !isAutomatic { tags.append(tag) }
      case .returned: break
      }
    case .method(.channelClose, _):
      send(.closeChannelOk)
      open()
    case .method(.channelCloseOk, _): if phase == .closing { open() }
    case .method(.basicCancel(let cancel), _):
      consumers.removeAll { $0.tag == cancel.consumerTag.description }
    default: break
    }
  }

  // MARK: Acting

  func act() {
    guard phase == .open, connection.waitingBytes < 1 << 20 else { return }
    if random.oneIn(200), !options.without.contains(.disconnects) { return send(.mistake) }
    if random.oneIn(150), !options.without.contains(.disconnects) {
      phase = .closing
      return send(.closeChannel)
    }
    switch part {
    case .publisher: for _ in 0..<random.number(0...6) { publish() }
    case .consumer: if random.oneIn(3) { consumeOn() } else { acknowledge() }
    case .getter: get()
    case .meddler: meddle()
    case .transactor: transact()
    }
  }

  private func transact() {
    switch random.number(0...9) {
    case 0...3: for _ in 0..<random.number(0...4) { publish() }
    case 4...6:
      guard !tags.isEmpty else { return }
      let index = random.number(0...tags.count - 1)
      let isMultiple = random.oneIn(3)
      if random.oneIn(4) {
        send(.reject(tag: tags[index], isMultiple: isMultiple, requeues: false))
      } else {
        send(.acknowledge(tag: tags[index], isMultiple: isMultiple))
      }
      answered += isMultiple ? Array(tags[...index]) : [tags[index]]
      if isMultiple { tags.removeFirst(index + 1) } else { tags.remove(at: index) }
    case 7:
      guard random.oneIn(3) else { return }
      tags = (answered + tags).sorted()
      answered = []
      send(.rollback)
    default:
      answered = []
      send(.commit)
    }
  }

  private func publish() {
    let (exchange, key) = topology.target(&random)
    if !exchange.isEmpty, random.oneIn(300), !options.without.contains(.disconnects) {
      return send(.mistake)
    }
    guard oracle.backlog < scenario.backlogMax else { return }
    let size =
      random.oneIn(scenario.largeOneIn)
      ? random.number(0...scenario.largeBytes) : random.choose([0, 3, 8, 60, 200, 900, 3000])
    let isPersistent = random.number(1...10) <= scenario.persistentOf10
    let isMandatory = random.oneIn(4)
    let isVerbose = random.oneIn(4)
    let headers = exchange == "xh" || random.oneIn(4) ? Header.some(&random) : []
    send(
      .publish(
        oracle.makeMessage {
          Message(
            id: $0, exchange: exchange, key: key, isPersistent: isPersistent,
            isMandatory: isMandatory, size: size, isVerbose: isVerbose, headers: headers)
        }))
  }

  private func consumeOn() {
    switch random.number(0...24) {
    case 0: if consumers.count < 4 { consume() }
    case 1: cancel()
    case 2: if random.oneIn(3) { recover() }
    case 3:
      if random.oneIn(3) { send(.prefetch(random.choose([0, 1, 2, 5, 20]), isShared: true)) }
    // What is got does not count against the prefetch.
    case 4: get()
    default: acknowledge()
    }
  }

  private func cancel() {
    guard let (tag, queue) = consumers.randomElement(using: &random),
      topology.kind(queue) != .lasting || random.oneIn(4)
    else { return }
    consumers.removeAll { $0.tag == tag }
    send(.cancel(tag: tag))
  }

  private func recover() {
    tags = []
    send(.recover)
  }

  private func acknowledge() {
    guard tags.count >= random.number(1...patience) else { return }
    switch random.number(0...9) {
    case 0...3: for _ in 0..<min(tags.count, random.number(1...8)) { settleOne() }
    case 4...7:
      let index = random.number(0...tags.count - 1)
      send(.acknowledge(tag: tags[index], isMultiple: true))
      tags.removeFirst(index + 1)
    case 8:
      let index = random.number(0...tags.count - 1)
      send(.reject(tag: tags[index], isMultiple: true, requeues: random.number(0...3) > 0))
      tags.removeFirst(index + 1)
    default:
      send(.acknowledge(tag: 0, isMultiple: true))
      tags = []
    }
  }

  private func settleOne() {
    let tag = tags.remove(at: random.oneIn(2) ? 0 : random.number(0...tags.count - 1))
    if random.oneIn(6) {
      send(.reject(tag: tag, isMultiple: false, requeues: random.number(0...3) > 0))
    } else {
      send(.acknowledge(tag: tag, isMultiple: false))
    }
  }

  private func get() {
    for _ in 0..<random.number(0...3) {
      send(.get(queue: chooseQueue(fleetingOneIn: 30), isAutomatic: isAutomatic))
    }
    if random.flag() { acknowledge() }
  }

  private func meddle() {
    let queue = chooseQueue(fleetingOneIn: 10)
    let mayChange = !options.without.contains(.declarations)
    switch random.number(0...44) {
    case 0...20: send(.inspect(queue: queue))
    case 21: send(.purge(queue: queue))
    case 22...25: if mayChange { declare(queue) }
    case 26: if mayChange { send(.delete(queue: queue)) }
    case 27...28: if mayChange { rebind(isBinding: false) }
    case 29...33: rebind(isBinding: true)
    case 34:
      if mayChange, random.oneIn(6) {
        send(.deleteExchange(random.choose(topology.exchangeNames)))
      }
    case 35: for exchange in topology.exchangeNames { send(.declareExchange(exchange)) }
    case 36...39: for _ in 0..<3 { publish() }
    default: get()
    }
  }

  /// Binds or unbinds something. What is to be bound may be missing, which closes the channel: what a
  /// client wants to bind is mostly there.
  private func rebind(isBinding: Bool) {
    guard let binding = topology.bindings.randomElement(using: &random) else { return }
    guard isBinding else { return send(.unbind(binding)) }
    let isLasting = binding.isToExchange || topology.kind(binding.destination) == .lasting
    if isLasting || random.oneIn(10) { send(.bind(binding)) }
  }

  private func declare(_ queue: String) {
    send(.declare(queue: queue))
    for binding in topology.bindings
    where !binding.isToExchange && binding.destination == queue && random.oneIn(3) {
      send(.bind(binding))
    }
  }
}
