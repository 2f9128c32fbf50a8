import AMQP
import Base
import Broker
import Synchronization
import Testing

@testable import Client
@testable import Server

/// What the operator hears of arguments that change nothing.
@Suite struct ToldArgumentsTests {
  private final class Lines: Sendable {
    private let texts = Mutex<[String]>([])
    func add(_ text: String) { texts.withLock { $0.append(text) } }
    var all: [String] { texts.withLock { $0 } }
  }

  private let lines = Lines()
  private let loop: TestLoop
  private let client: TestClient

  init() throws {
    let lines = lines
    loop = try TestLoop(log: Log(level: .info) { lines.add($0) })
    client = loop.connect()
    try client.open()
  }

  private func declare(_ queue: Name, _ arguments: FieldTable) throws {
    let events = try client.call(.queueDeclare(QueueDeclare(queue: queue, arguments: arguments)))
    #expect(events.count == 1)
  }

  private var told: [String] { lines.all.filter { $0.contains("has no effect") } }

  @Test func eachNameIsToldOnce() throws {
    let arguments: FieldTable = [
      "x-mesage-ttl": .int32(5), "x-queue-mode": .string("lazy"), "x-max-length": .int32(5),
      "x-queue-type": .string("classic"), "x-single-active-consumer": .bool(true),
    ]
    for number in 0..<20 { try declare(Name("q\(number % 10)"), arguments) }
    #expect(told.count == 2, "\(told)")
    #expect(told.contains { $0.contains("'x-mesage-ttl'") && $0.contains("'q0'") })
    #expect(told.contains { $0.contains("'x-queue-mode'") })
  }

  @Test func namesThatClientsMakeUpAreToldUpToALimit() throws {
    for number in 0..<ToldArguments.countMax + 20 {
      try declare(Name("q\(number)"), [Name("x-\(number)"): .bool(true)])
    }
    #expect(told.count == ToldArguments.countMax)
  }

  @Test func settingsOfStreamsMeanNothingElsewhere() throws {
    try declare("q", ["x-max-age": .string("1D"), "x-stream-partitions": .int32(3)])
    #expect(told.count == 2, "\(told)")
  }

  @Test func whatStreamsHaveIsNoMistake() throws {
    let arguments: FieldTable = [
      "x-queue-type": .string("stream"), "x-max-age": .string("1D"),
      "x-stream-max-segment-size-bytes": .int64(100_000), "x-max-length-bytes": .int64(1_000_000),
    ]
    _ = try client.call(
      .queueDeclare(QueueDeclare(queue: "s", durable: true, arguments: arguments)))
    #expect(told == [])
  }
}
