import IO

/// What carries a client's bytes: a socket, or a simulated one. Nothing here blocks. The loop calls it
/// once or twice for a batch of messages, never for a message.
package protocol Transport: AnyObject {
  /// Reads what has come, at most what fits.
  func read(into buffer: UnsafeMutableRawBufferPointer) -> Arrival
  /// Writes as much as is taken now.
  func write(_ bytes: UnsafeRawBufferPointer) -> TransferResult
  /// From now on the loop is to be told when there is something to read, or room to write.
  func watch(reads: Bool, writes: Bool) throws(SystemError)
  /// Ends the stream towards the client, which can still send.
  func shutdownWrite()
  /// The connection is over in both directions.
  func close()
}

/// What a read came to.
package enum Arrival: Equatable {
  /// So many bytes, never 0. With `isMore`, more has come that nobody will tell of: it is read before
  /// consumers are served.
  case count(Int, isMore: Bool)
  case wouldBlock
  /// The client has ended its stream.
  case ended
  case failed(SystemError)
}
