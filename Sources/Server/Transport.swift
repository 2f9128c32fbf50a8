import IO

/// What carries a client's bytes: a socket, a simulated one, or something that makes other bytes of
/// them, such as TLS, on their way to one of these. Nothing here blocks. The loop calls it once or twice
/// for a batch of messages, never for a message, and knows no descriptor.
package protocol Transport: AnyObject {
  /// Reads what has come, at most what fits.
  func read(into buffer: UnsafeMutableRawBufferPointer) -> Arrival
  /// Writes as much as is taken now: nothing while it holds some of what it took before.
  func write(_ bytes: UnsafeRawBufferPointer) -> TransferResult
  /// Something of its own is still to be sent: the end of what `write` took, or an answer that is no
  /// conversation's. Then the loop watches for room, and calls `flush` when there is nothing to write.
  var isHolding: Bool { get }
  /// Sends as much of it as is taken now.
  func flush() -> FlushResult
  /// From now on the loop is to be told when there is something to read, or room to write.
  func watch(reads: Bool, writes: Bool) throws(SystemError)
  /// Ends the stream towards the client, which can still send.
  func shutdownWrite()
  /// The connection is over in both directions.
  func close()
}

/// One that passes bytes on as they are holds none.
extension Transport {
  package var isHolding: Bool { false }
  package func flush() -> FlushResult { .done }
}

/// What a read came to.
package enum Arrival: Equatable {
  /// So many bytes, never 0. With `isMore`, more has come that nobody will tell of: it is read before
  /// consumers are served, or in the next turn if it is much.
  case count(Int, isMore: Bool)
  case wouldBlock
  /// The client has ended its stream.
  case ended
  case failed(SystemError)
}

/// How far what there is to send was sent.
package enum FlushResult: Equatable {
  /// All of it.
  case done
  /// No more is taken for now.
  case partial
  case failed
}
