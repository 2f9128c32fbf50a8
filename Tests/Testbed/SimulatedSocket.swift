import Base
import Glibc
import IO
import Server

/// A connection between a loop and a client, whose bytes a test carries.
package final class SimulatedSocket: Transport {
  /// Sent by the client and not read by the loop.
  private var inbound = ByteBuffer()
  /// Written by the loop and not read by the client.
  private var outbound = ByteBuffer()
  /// So much `outbound` may hold.
  package var roomBytes = Int.max
  /// The client has ended its stream.
  package var isEnded = false
  /// Nothing comes through any more.
  package private(set) var isBroken = false
  package private(set) var isWriteEnded = false
  package private(set) var isClosed = false
  package private(set) var watchesReads = true
  package private(set) var watchesWrites = false

  /// Decides what a read gets of what has come, instead of all; the second number fits.
  package var onRead: ((_ available: Int, _ room: Int) -> (count: Int, isMore: Bool))?
  /// Sees all that the loop wants to write, and decides how much of it is taken, at most the number.
  package var onWrite: ((UnsafeRawBufferPointer, _ room: Int) -> Int)?
  package var onClose: (() -> Void)?

  package init() {}

  // MARK: The client's end

  package func send(_ bytes: [UInt8]) { inbound.append(bytes) }

  package var unreadCount: Int { outbound.count }

  /// Takes up to `count` bytes of what the loop has written.
  package func receive(_ count: Int = .max) -> [UInt8] {
    let bytes = Array(outbound.readable.prefix(count))
    outbound.consume(bytes.count)
    return bytes
  }

  package func breakOff() { isBroken = true }

  /// What the loop is to be told now; nil for nothing. As with epoll, it is told again until it is
  /// done with it.
  package var readiness: (reads: Bool, writes: Bool)? {
    guard !isClosed else { return nil }
    let reads = watchesReads && (!inbound.isEmpty || isEnded || isBroken)
    let writes = watchesWrites && (outbound.count < roomBytes || isBroken)
    return reads || writes || isBroken ? (reads, writes) : nil
  }

  // MARK: The loop's end

  package func read(into buffer: UnsafeMutableRawBufferPointer) -> Arrival {
    if isBroken { return .failed(SystemError("transfer", code: ECONNRESET)) }
    guard !inbound.isEmpty else { return isEnded ? .ended : .wouldBlock }
    let available = min(inbound.count, buffer.count)
    let (count, isMore) = onRead?(inbound.count, buffer.count) ?? (available, false)
    buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: inbound.readable[..<count]))
    inbound.consume(count)
    return .count(count, isMore: isMore)
  }

  package func write(_ bytes: UnsafeRawBufferPointer) -> TransferResult {
    let room = isBroken ? 0 : min(max(0, roomBytes - outbound.count), bytes.count)
    let count = onWrite?(bytes, room) ?? room
    if isBroken { return .failed(SystemError("transfer", code: EPIPE)) }
    guard count > 0 else { return .wouldBlock }
    outbound.append(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    return .count(count)
  }

  package func watch(reads: Bool, writes: Bool) throws(SystemError) {
    watchesReads = reads
    watchesWrites = writes
  }

  package func shutdownWrite() { isWriteEnded = true }

  package func close() {
    isClosed = true
    onClose?()
  }
}
