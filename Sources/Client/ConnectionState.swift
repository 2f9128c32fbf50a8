import Base

/// What the tasks and the thread of a connection share, under the connection's lock.
struct ConnectionState: ~Copyable {
  /// Whole frames that wait to be written.
  var outbound = ByteBuffer()
  /// A message's properties while they are encoded.
  var scratch = ByteBuffer()
  /// The thread will look at `outbound` before it waits; otherwise it must be woken.
  var isLoopAwake = true
  /// Tasks that wait until `outbound` is shorter.
  var roomWaiters: [Waiter<Void>] = []
  /// The open channels and those being opened or closed.
  var channels: [UInt16: Channel] = [:]
  /// Until when the broker may take to say goodbye; nil unless the connection is being closed.
  var closeDeadline: Deadline?
  /// Why there is no connection any more; nil while there is.
  var ended: ClientError?
  var endWaiters: [Waiter<Void>] = []
  var blockedReason: String?
  var blockedStreams: [AsyncStream<String?>.Continuation] = []

  /// Throws if nothing can be sent any more.
  func check() throws(ClientError) {
    if let ended { throw ended }
    if closeDeadline != nil { throw .notConnected }
  }

  /// The lowest channel number that is free.
  func freeChannel(max: UInt16) -> UInt16? {
    guard channels.count < Int(max) else { return nil }
    return (1...max).first { channels[$0] == nil }
  }

  /// Takes out the frames of a channel that the broker has closed: it would close the connection if
  /// they reached it. A frame is type (u8), channel (u16), size (u32), payload, end (u8).
  mutating func dropOutbound(channel: UInt16) {
    var kept = ByteBuffer()
    let bytes = outbound.readable.bytes
    var offset = 0
    while offset < bytes.byteCount {
      let size = 8 + Int(bytes.bigEndian32(at: offset + 3))
      if bytes.bigEndian16(at: offset + 1) != channel {
        kept.append(bytes.extracting(offset..<offset + size))
      }
      offset += size
    }
    swap(&outbound, &kept)
  }
}
