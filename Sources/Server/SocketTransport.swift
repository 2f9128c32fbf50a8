import IO

/// A client's socket, and its place in the poller.
final class SocketTransport: Transport {
  private let socket: Socket
  private let poller: Poller
  private var token: UInt64 = 0

  init(_ socket: consuming Socket, _ poller: Poller) {
    self.socket = socket
    self.poller = poller
  }

  /// Watches for input.
  func begin(_ token: UInt64) throws(SystemError) {
    self.token = token
    try poller.add(socket.descriptor.raw, token: token, reads: true, writes: false)
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) -> Arrival {
    switch socket.descriptor.read(into: buffer) {
    case .count(let count): .count(count, isMore: false)
    case .wouldBlock: .wouldBlock
    case .ended: .ended
    case .failed(let error): .failed(error)
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer) -> TransferResult { socket.descriptor.write(bytes) }

  func watch(reads: Bool, writes: Bool) throws(SystemError) {
    try poller.change(socket.descriptor.raw, token: token, reads: reads, writes: writes)
  }

  func shutdownWrite() { socket.shutdownWrite() }

  func close() {
    poller.remove(socket.descriptor.raw)
    socket.shutdownBoth()
  }
}
