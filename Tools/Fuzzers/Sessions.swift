import AMQP
import Arbitrary
import Base

@testable import Broker
@testable import Journal
@testable import Server

/// Feeds sessions of a broker. The input is a list of things that a client sends, so that damage to
/// it leaves frames whole; what the session answers must be AMQP, and what it held must be given
/// back. The address sanitizer watches the broker's unsafe references. `Tools/fuzz sessions` builds
/// and runs it.
@c(LLVMFuzzerTestOneInput)
public func fuzzSessions(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  FuzzedLoop.shared.run(Array(UnsafeBufferPointer(start: start, count: count)))
  return 0
}

/// One broker for all inputs, which leaves nothing behind in it. libFuzzer has one thread.
private final class FuzzedLoop {
  nonisolated(unsafe) static let shared = FuzzedLoop()

  private let loop: TestLoop

  private init() {
    var settings = SessionSettings()
    settings.outputMax = 16 << 10
    settings.messageSizeMax = 64 << 10
    do {
      loop = try TestLoop(settings: settings)
    } catch {
      invariantFailed("no loop: \(error)")
    }
  }

  func run(_ input: [UInt8]) {
    let clients = [loop.connect(), loop.connect()]
    for client in clients { open(client) }
    var reader = ByteReader(input.span.bytes)
    do throws(MalformedInput) {
      while !reader.isAtEnd {
        let selector = try reader.u8()
        try send(&reader, selector, by: clients[Int(selector >> 7)])
      }
    } catch {}
    for client in clients {
      listen(to: client)
      loop.drop(client)
    }
    loop.turn()
    tidy()
  }

  private func open(_ client: TestClient) {
    client.send(Frame.protocolHeader)
    client.send(Wire.method(.connectionStartOk(Wire.startOK), on: 0))
    client.send(Wire.method(.connectionTuneOk(Wire.tuneOK(frameMax: 4096)), on: 0))
    client.send(Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0))
    for channel in UInt16(1)...2 {
      client.send(Wire.method(.channelOpen(ChannelOpen()), on: channel))
    }
  }

  /// The lowest bits say what is sent, the next ones on which channel.
  private func send(
    _ reader: inout ByteReader, _ selector: UInt8, by client: TestClient
  ) throws(MalformedInput) {
    let channel = UInt16(selector >> 3 & 3)
    switch selector & 7 {
    case 0, 1, 2:
      let method = MethodTable.methods[Int(try reader.u8()) % MethodTable.methods.count]
      let id = [method.id.classID, method.id.methodID].flatMap {
        [UInt8($0 >> 8), UInt8($0 & 255)]
      }
      client.send(Wire.frame(Frame.method, id + (try reader.array(Int(reader.u8()))), on: channel))
    case 3:
      let size = UInt64(try reader.u16())
      let properties = try reader.array(Int(reader.u8()))
      client.send(Wire.header(size, properties: properties, on: channel))
    case 4:
      client.send(Wire.frame(Frame.body, try reader.array(Int(reader.u8())), on: channel))
    case 5: client.send(try reader.array(Int(reader.u8())))
    case 6: listen(to: client)
    default:
      client.isReading = selector & 8 == 0
      if selector & 16 == 0 { loop.turn() } else { loop.settle() }
    }
  }

  private func listen(to client: TestClient) {
    let bytes = client.takeBytes()
    guard bytes != Frame.protocolHeader else { return }
    do {
      _ = try ClientEvent.parse(bytes)
    } catch {
      invariantFailed("the broker's answer: \(error)")
    }
    invariant(client.outputPeak < 1 << 20, "\(client.outputPeak) bytes are unsent")
  }

  /// Deletes what the clients left, which is all there is, and looks for what it left in turn.
  private func tidy() {
    guard let vhost = loop.broker.vhost("/") else { return }
    for queue in vhost.queues.values {
      invariant(!queue.isExclusive, "an exclusive queue outlived its connection")
      invariant(queue.consumerCount == 0, "a consumer outlived its connection")
      invariant(queue.messageCount == queue.readyCount, "a delivery outlived its connection")
      vhost.remove(queue)
    }
    for exchange in vhost.exchanges.values where !exchange.isPredeclared { vhost.remove(exchange) }
    loop.turn()
    let journal = loop.broker.journal
    let references = (0..<journal.blockCapacity).reduce(0) { $0 + journal.blocks[$1].references }
    invariant(references == 0, "\(references) references outlived their queues")
  }
}
