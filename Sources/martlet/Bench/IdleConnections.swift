import AMQP
import Client
import IO

/// Connections that do nothing but keep up their heartbeats.
final class IdleConnections: WireSink {
  private let control: BenchControl
  private let poller: Poller
  private var connections: [WireConnection] = []
  /// How long it took to open all of them.
  private(set) var openSeconds = 0.0

  init(_ control: BenchControl) throws(SystemError) {
    self.control = control
    poller = try Poller()
  }

  var count: Int { connections.count { $0.isConnected } }

  /// Opens `count` connections, one after the other, until `shouldStop` says so or one fails.
  func open(_ count: Int, _ options: BenchOptions, _ shouldStop: () -> Bool) {
    let start = Clock.monotonicNanoseconds()
    for index in 0..<count where !shouldStop() {
      do {
        try open(index, options)
      } catch {
        control.fail("idle connection \(index): \(error)")
        break
      }
      if index % 256 == 0 { tick() }
    }
    openSeconds = Double(Clock.monotonicNanoseconds() - start) / 1_000_000_000
  }

  private func open(_ index: Int, _ options: BenchOptions) throws {
    var wire = WireOptions()
    wire.connectionName = "\(options.name) idle \(index)"
    wire.readSize = 1024
    let connection = try WireConnection(options.url, wire)
    try poller.add(connection.descriptor, token: UInt64(index), reads: true, writes: false)
    connections.append(connection)
  }

  /// Takes and answers heartbeats. To be called a few times a second.
  func tick() {
    do {
      try poller.wait(timeoutMilliseconds: 0) { event in
        attempt(Int(event.token)) { connection throws(ClientError) in
          try connection.receiveAvailable(into: self)
        }
      }
    } catch {
      control.fail("idle connections: \(error)")
    }
    for index in connections.indices {
      attempt(index) { connection throws(ClientError) in try connection.tick() }
    }
  }

  /// Says goodbye to a broker that still answers.
  func close() {
    for index in connections.indices {
      attempt(index) { connection throws(ClientError) in try connection.close() }
      if !control.failures.isEmpty { return }
    }
  }

  private func attempt(
    _ index: Int, _ body: (WireConnection) throws(ClientError) -> Void
  ) {
    guard connections[index].isConnected else { return }
    do {
      try body(connections[index])
    } catch {
      control.fail("idle connection \(index): \(error)")
    }
  }

  func received(_ message: borrowing WireMessage) {}
  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {}
  func received(_ method: Method, channel: UInt16) {}
}
