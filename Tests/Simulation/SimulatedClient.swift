import AMQP
import Arbitrary

/// A client that does at random what its part is. It goes by what it has heard, not by what the
/// broker has done.
final class SimulatedClient {
  enum Part: CaseIterable {
    case publisher, consumer, getter, meddler
  }

  private enum Phase {
    case open, closing
  }

  let name: String
  let part: Part
  let connection: SimulatedConnection
  private let scenario: Scenario
  private let options: RunOptions
  private let oracle: Oracle
  private var random: SeededGenerator
  private var phase = Phase.open
  /// Deliveries that were not acknowledged, by their tags.
  private var tags: [UInt64] = []
  private var consumers: [String] = []
  private var consumerNumber = 0
  /// Bytes that it reads in a turn.
  private let readBytes: Int
  private let isAutomatic: Bool
  /// Consumers acknowledge in this style.
  private let patience: Int

  init(
    name: String, part: Part, connection: SimulatedConnection, scenario: Scenario,
    options: RunOptions, oracle: Oracle, random: SeededGenerator
  ) {
    self.name = name
    self.part = part
    self.connection = connection
    self.scenario = scenario
    self.options = options
    self.oracle = oracle
    self.random = random
    let isSlow = self.random.oneIn(4) && !options.without.contains(.slowReaders)
    readBytes = isSlow ? self.random.choose([1, 100, 3000]) : .max
    isAutomatic = self.random.oneIn(4)
    patience = self.random.choose([1, 4, 20, 200])
    connection.send(.connect, on: 0)
    open()
  }

  private func open() {
    phase = .open
    tags = []
    consumers = []
    connection.send(.openChannel)
    if part == .publisher || random.oneIn(3) { connection.send(.confirmSelect) }
    if part == .consumer {
      connection.send(.prefetch(random.choose([0, 1, 3, 10, 50])))
      for _ in 0..<random.number(1...2) { consume() }
    }
  }

  private func consume() {
    consumerNumber += 1
    let tag = "\(name)-\(consumerNumber)"
    consumers.append(tag)
    connection.send(
      .consume(
        queue: random.choose(scenario.topology.queues), tag: tag, isAutomatic: isAutomatic))
  }

  // MARK: Hearing

  func read() {
    let count = readBytes == .max ? .max : random.number(0...readBytes)
    connection.receive(count) { hear($0) }
  }

  private func hear(_ event: ClientEvent) {
    switch event {
    case .content(let content):
      switch content.kind {
      case .delivery(let tag, _, _): if !isAutomatic { tags.append(tag) }
      case .got(let tag, _, _): if !isAutomatic { tags.append(tag) }
      case .returned: break
      }
    case .method(.channelClose, _):
      connection.send(.closeChannelOk)
      open()
    case .method(.channelCloseOk, _): if phase == .closing { open() }
    case .method(.basicCancel(let cancel), _):
      consumers.removeAll { $0 == cancel.consumerTag.description }
    default: break
    }
  }

  // MARK: Acting

  func act() {
    guard phase == .open, connection.waitingBytes < 1 << 20 else { return }
    if random.oneIn(200), !options.without.contains(.disconnects) {
      return connection.send(.mistake)
    }
    if random.oneIn(150), !options.without.contains(.disconnects) {
      phase = .closing
      return connection.send(.closeChannel)
    }
    switch part {
    case .publisher: for _ in 0..<random.number(0...6) { publish() }
    case .consumer: if random.oneIn(3) { consumeOn() } else { acknowledge() }
    case .getter: get()
    case .meddler: meddle()
    }
  }

  private func publish() {
    let (exchange, key) = scenario.topology.target(&random)
    if !exchange.isEmpty, random.oneIn(300), !options.without.contains(.disconnects) {
      return connection.send(.mistake)
    }
    guard oracle.backlog < scenario.backlogMax else { return }
    let size =
      random.oneIn(scenario.largeOneIn)
      ? random.number(0...scenario.largeBytes) : random.choose([0, 3, 8, 60, 200, 900, 3000])
    let isPersistent = random.number(1...10) <= scenario.persistentOf10
    let isMandatory = random.oneIn(4)
    let isVerbose = random.oneIn(4)
    connection.send(
      .publish(
        oracle.makeMessage {
          Message(
            id: $0, exchange: exchange, key: key, isPersistent: isPersistent,
            isMandatory: isMandatory, size: size, isVerbose: isVerbose)
        }))
  }

  private func consumeOn() {
    switch random.number(0...20) {
    case 0: if consumers.count < 4 { consume() }
    case 1:
      if let tag = consumers.randomElement(using: &random), random.oneIn(4) {
        consumers.removeAll { $0 == tag }
        connection.send(.cancel(tag: tag))
      }
    case 2: if random.oneIn(3) { recover() }
    default: acknowledge()
    }
  }

  private func recover() {
    tags = []
    connection.send(.recover)
  }

  private func acknowledge() {
    guard tags.count >= random.number(1...patience) else { return }
    switch random.number(0...9) {
    case 0...3: for _ in 0..<min(tags.count, random.number(1...8)) { settleOne() }
    case 4...7:
      let index = random.number(0...tags.count - 1)
      connection.send(.acknowledge(tag: tags[index], isMultiple: true))
      tags.removeFirst(index + 1)
    case 8:
      let index = random.number(0...tags.count - 1)
      connection.send(
        .reject(tag: tags[index], isMultiple: true, requeues: random.number(0...3) > 0))
      tags.removeFirst(index + 1)
    default:
      connection.send(.acknowledge(tag: 0, isMultiple: true))
      tags = []
    }
  }

  private func settleOne() {
    let tag = tags.remove(at: random.oneIn(2) ? 0 : random.number(0...tags.count - 1))
    if random.oneIn(6) {
      connection.send(.reject(tag: tag, isMultiple: false, requeues: random.number(0...3) > 0))
    } else {
      connection.send(.acknowledge(tag: tag, isMultiple: false))
    }
  }

  private func get() {
    for _ in 0..<random.number(0...3) {
      connection.send(
        .get(queue: random.choose(scenario.topology.queues), isAutomatic: isAutomatic))
    }
    if random.flag() { acknowledge() }
  }

  private func meddle() {
    let queue = random.choose(scenario.topology.queues)
    switch random.number(0...40) {
    case 0...20: connection.send(.inspect(queue: queue))
    case 21: connection.send(.purge(queue: queue))
    case 22...24: if !options.without.contains(.declarations) { declare(queue) }
    case 25: if !options.without.contains(.declarations) { connection.send(.delete(queue: queue)) }
    case 26:
      guard !options.without.contains(.declarations) else { return }
      if let binding = scenario.topology.bindings.randomElement(using: &random) {
        connection.send(.unbind(binding))
      }
    case 27...30:
      if let binding = scenario.topology.bindings.randomElement(using: &random) {
        connection.send(.bind(binding))
      }
    case 31...34: for _ in 0..<3 { publish() }
    default: get()
    }
  }

  private func declare(_ queue: String) {
    connection.send(.declare(queue: queue))
    for binding in scenario.topology.bindings where binding.queue == queue && random.oneIn(3) {
      connection.send(.bind(binding))
    }
  }
}
