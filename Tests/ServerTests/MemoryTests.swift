import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// Memory that clients keep busy is counted, comes back, and is not taken from others.
@Suite struct MemoryTests {
  private static func limits(_ bytes: Int) -> BrokerLimits {
    var limits = BrokerLimits()
    limits.memoryBytes = bytes
    return limits
  }

  /// A publish that announces `size` bytes and has one frame with some of them.
  private static func beginning(of size: Int, with count: Int) -> [UInt8] {
    Wire.method(.basicPublish(BasicPublish(routingKey: "nowhere")))
      + Wire.header(UInt64(size), on: 1)
      + more(count)
  }

  private static func more(_ count: Int) -> [UInt8] {
    Wire.frame(Frame.body, [UInt8](repeating: 1, count: count), on: 1)
  }

  private func open(_ loop: TestLoop, count: Int) throws -> [TestClient] {
    try (0..<count).map { _ in
      let client = loop.connect()
      try client.open()
      return client
    }
  }

  private func small(_ queue: Name, _ byte: UInt8) -> [UInt8] {
    Wire.publish(BasicPublish(routingKey: queue), body: [byte]).flatMap(\.self)
  }

  // MARK: The account

  @Test func everythingIsCountedAndComesBack() throws {
    let loop = try TestLoop()
    let before = loop.broker.account
    let client = loop.connect()
    try client.open()
    #expect(loop.broker.account[.connections] > before[.connections])
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    client.send(Self.beginning(of: 100_000, with: 60_000))
    loop.settle()
    #expect(loop.broker.account[.bodies] >= 60_000)
    #expect(loop.broker.account[.bodies] <= 100_100, "a buffer is not larger than its body")
    client.send(Self.more(40_000) + Array(Self.more(5000).dropLast()))
    loop.settle()
    #expect(client.session.state == .closing, "a body frame without its message")
    loop.drop(client)
    loop.settle()
    for kind in [MemoryAccount.Kind.connections, .bodies, .input, .output] {
      #expect(loop.broker.account[kind] == before[kind], "\(kind)")
    }
  }

  /// The properties of messages whose bodies are still to come count as well: 2047 channels can begin
  /// one each.
  @Test func propertiesOfUnfinishedMessagesAreLimited() throws {
    var settings = SessionSettings()
    settings.messageSizeMax = 10_000
    let loop = try TestLoop(settings: settings)
    let client = loop.connect()
    try client.open()
    var properties = BasicProperties()
    properties.headers = ["x": .string(Array(repeating: 1, count: 4000))]
    var frames: [UInt8] = []
    for channel in 2...5 as ClosedRange<UInt16> {
      frames += Wire.method(.channelOpen(ChannelOpen()), on: channel)
      frames += Wire.method(.basicPublish(BasicPublish()), on: channel)
      frames += Wire.header(1, properties: properties.bytes, on: channel)
    }
    let reply = Mistake("too-much-content", with: ["10000"], by: BasicPublish.id).reply
    #expect(try client.exchange(frames).last == reply)
    #expect(loop.broker.account[.bodies] == 0)
  }

  // MARK: Output

  /// Who has heard nothing for a while, and is sent something in the turn in which slow readers are
  /// looked for, has had no chance to take it.
  @Test func whatWasJustSaidIsNotCountedAsUnread() throws {
    let loop = try TestLoop(limits: Self.limits(16 << 20))
    let client = try open(loop, count: 1)[0]
    loop.broker.account.add(9 << 20, to: .output)
    loop.turn()
    #expect(loop.broker.isOutputExhausted)
    for _ in 0..<10 { loop.turn(after: 1000) }
    client.send(Wire.method(.queueDeclare(QueueDeclare(queue: "q"))))
    loop.turn(after: 1000)
    #expect(!client.isClosed)
    #expect(try client.takeEvents().count == 1)
    client.isReading = false
    client.send(Wire.method(.queueDeclare(QueueDeclare(queue: "q"))))
    for _ in 0..<5 { loop.turn(after: 1000) }
    #expect(!client.isClosed)
    for _ in 0..<2 { loop.turn(after: 1000) }
    #expect(client.isClosed)
    loop.broker.account.add(-9 << 20, to: .output)
  }

  // MARK: Unfinished input

  @Test func aMessageThatDoesNotGoOnIsGivenUp() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    client.send(Self.beginning(of: 10_000, with: 5000))
    for _ in 0..<50 { loop.turn(after: 1000) }
    client.send(Self.more(1))
    for _ in 0..<50 {
      // Heartbeats are no progress.
      client.send(Wire.heartbeat)
      loop.turn(after: 1000)
    }
    #expect(client.session.state == .open)
    for _ in 0..<12 { loop.turn(after: 1000) }
    let reply = Mistake("content-stalled", with: ["60"], by: .none).reply
    #expect(try client.takeEvents().last == reply)
    #expect(loop.broker.account[.bodies] == 0)
  }

  @Test func halfAFrameThatDoesNotGoOnIsGivenUp() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    client.send(Array(Wire.method(.queueDeclare(QueueDeclare(queue: "q"))).dropLast()))
    for _ in 0..<62 { loop.turn(after: 1000) }
    #expect(client.session.state == .closing)
  }

  /// Sixteen clients begin what only four have room for: all finish in the end, nobody is closed,
  /// and what they hold together stays near its part of the limit.
  @Test func messagesThatHaveNoRoomTogetherFinishOneByOne() throws {
    let loop = try TestLoop(limits: Self.limits(16 << 20))
    let clients = try open(loop, count: 16)
    for client in clients { _ = try client.call(.confirmSelect(ConfirmSelect())) }
    let size = 1 << 20
    var rest = clients.map { client in (client, (0..<16).map { _ in Self.more(size / 16) }) }
    for client in clients { client.send(Self.beginning(of: size, with: 0)) }
    var peak = 0
    for _ in 0..<400 where rest.contains(where: { !$0.1.isEmpty }) {
      for index in rest.indices where !rest[index].1.isEmpty {
        // A client whose connection is not read keeps its bytes in the socket.
        guard rest[index].0.connection.wantsReads else { continue }
        rest[index].0.send(rest[index].1.removeFirst())
      }
      loop.turn(after: 10)
      peak = max(peak, loop.broker.account[.bodies])
    }
    loop.settle()
    #expect(rest.allSatisfy { $0.1.isEmpty })
    #expect(clients.allSatisfy { $0.session.state == .open })
    #expect(peak < 9 << 20)
    for client in clients {
      #expect(
        try client.takeEvents()
          == [.confirm(tag: 1, isMultiple: false, isAccepted: true, channel: 1)])
    }
  }

  /// While memory for unfinished messages is short, who stops loses its place soon, and who publishes
  /// small ones notices nothing.
  @Test func whoHoldsScarceMemoryAndStopsIsClosed() throws {
    let loop = try TestLoop(limits: Self.limits(16 << 20))
    let bystander = loop.connect()
    try bystander.open()
    _ = try bystander.call(.queueDeclare(QueueDeclare(queue: "q")))
    let clients = try open(loop, count: 8)
    for client in clients {
      client.send(Self.beginning(of: 4 << 20, with: 1))
      for _ in 0..<16 where client.connection.wantsReads { client.send(Self.more(100_000)) }
    }
    #expect(loop.broker.account.isOverBudget(.bodies))
    for second in 1...60 {
      loop.turn(after: 1000)
      bystander.send(small("q", UInt8(second)))
    }
    #expect(!loop.broker.account.isOverBudget(.bodies))
    #expect(clients.contains { $0.session.state != .open })
    let status = try bystander.call(.queueDeclare(QueueDeclare(queue: "q", passive: true)))
    let all = QueueDeclareOk(queue: "q", messageCount: 60, consumerCount: 0)
    #expect(status == [.method(.queueDeclareOk(all), channel: 1)])
  }

  // MARK: Output

  /// Forty clients consume a message of 1 MiB each and read nothing, and none of these can leave memory.
  /// They are given a part of the limit, then closed, and their messages come back; a small message
  /// reaches its reader all the while.
  @Test func slowReadersOfLargeMessagesAreBounded() throws {
    let loop = try TestLoop(limits: Self.limits(32 << 20))
    let bystander = loop.connect()
    try bystander.open()
    _ = try bystander.call(.queueDeclare(QueueDeclare(queue: "small")))
    _ = try bystander.call(
      .basicConsume(BasicConsume(queue: "small", consumerTag: "s", noAck: true)))
    let large = [UInt8](repeating: 7, count: 1 << 20)
    var properties = BasicProperties()
    properties.deliveryMode = 2
    for number in 0..<40 {
      let queue = Name("q\(number)")
      _ = try bystander.call(.queueDeclare(QueueDeclare(queue: queue, durable: true)))
      let publish = Wire.publish(
        BasicPublish(routingKey: queue), body: large, properties: properties.bytes,
        pieces: [Int](repeating: 100_000, count: 10))
      _ = try bystander.exchange(publish.flatMap(\.self))
    }
    let readers = try open(loop, count: 40)
    for (number, reader) in readers.enumerated() {
      reader.isReading = false
      let consume = BasicConsume(queue: Name("q\(number)"), consumerTag: "c")
      reader.send(Wire.method(.basicConsume(consume)))
    }
    loop.settle()
    #expect(loop.broker.isOutputExhausted)
    #expect(loop.broker.account[.output] < 26 << 20)
    for _ in 0..<20 { #expect(try bystander.exchange(small("small", 1)).count == 1) }
    for _ in 0..<100 { loop.turn(after: 1000) }
    #expect(!loop.broker.isOutputExhausted)
    #expect(loop.broker.account[.output] < 10 << 20)
    // Every message is there for whoever reads.
    for reader in readers { loop.drop(reader) }
    for number in 0..<40 {
      let get = BasicGet(queue: Name("q\(number)"), noAck: true)
      #expect(try bystander.call(.basicGet(get)).count == 1)
    }
  }

  /// A large message makes the output of its reader grow. Once that is read it is no slow reader's, also
  /// if there is always something small to read behind it.
  @Test func whoHasReadEverythingHoldsNobodyUp() throws {
    let loop = try TestLoop(limits: Self.limits(1 << 20))
    let client = try open(loop, count: 1)[0]
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    _ = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c", noAck: true)))
    for _ in 0..<3 {
      let large = [UInt8](repeating: 7, count: 600_000)
      let publish = Wire.publish(
        BasicPublish(routingKey: "q"), body: large, pieces: [Int](repeating: 100_000, count: 6))
      #expect(try client.exchange(publish.flatMap(\.self)).count == 1)
      for _ in 0..<5 {
        loop.turn(after: 100)
        #expect(try client.exchange(small("q", 1)).count == 1)
      }
      #expect(!loop.broker.isOutputExhausted)
    }
  }

  // MARK: Topology

  /// Whoever declares without end is refused at a quarter of the limit; publishing goes on.
  @Test func whatIsDeclaredIsBounded() throws {
    let loop = try TestLoop(limits: Self.limits(4 << 20))
    let bystander = loop.connect()
    try bystander.open()
    _ = try bystander.call(.queueDeclare(QueueDeclare(queue: "q")))
    let client = loop.connect()
    try client.open()
    var answers: [ClientEvent] = []
    var number = 0
    while client.session.state == .open, number < 10_000 {
      let name = Name([UInt8](repeating: 120, count: 200) + Array(String(number).utf8))
      answers = try client.call(.queueDeclare(QueueDeclare(queue: name)))
      number += 1
    }
    guard case .method(.connectionClose(let close), _) = answers.last else {
      Issue.record("\(number) queues were not refused: \(answers)")
      return
    }
    #expect(close.replyCode == 506)
    #expect(close.replyText.description.hasPrefix("RESOURCE_ERROR - no memory for a queue: "))
    #expect(loop.broker.account[.topology] > 1 << 20)
    #expect(loop.broker.account[.topology] < 1 << 20 + 10_000)
    #expect(loop.broker.alarm == nil)
    _ = try bystander.exchange(small("q", 1))
    // What was deleted makes room.
    for number in 0..<20 {
      let name = Name([UInt8](repeating: 120, count: 200) + Array(String(number).utf8))
      _ = try bystander.call(.queueDelete(QueueDelete(queue: name)))
    }
    let again = try bystander.call(.queueDeclare(QueueDeclare(queue: "again")))
    let ok = QueueDeclareOk(queue: "again", messageCount: 0, consumerCount: 0)
    #expect(again == [.method(.queueDeclareOk(ok), channel: 1)])
  }
}
