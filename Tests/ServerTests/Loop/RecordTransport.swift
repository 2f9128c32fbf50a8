import Base
import IO

@testable import Server

/// Carries bytes in records, as TLS does: two bytes of size, and as many other bytes for those that are
/// meant.
final class RecordTransport: Transport {
  private let inner: any Transport
  /// Came, and is no whole record.
  private var encoded: [UInt8] = []
  /// Of whole records, and not read by the loop.
  private var decoded: [UInt8] = []
  /// The end of a record that did not fit.
  private var held: [UInt8] = []

  private static let payloadMax = 1000
  private static let key: UInt8 = 0x5A
  private static let readBytes = 1 << 20

  init(over inner: any Transport) {
    self.inner = inner
  }

  static func encode(_ bytes: [UInt8]) -> [UInt8] {
    stride(from: 0, to: bytes.count, by: payloadMax).flatMap { start in
      record(bytes[start..<min(start + payloadMax, bytes.count)])
    }
  }

  /// The bytes that whole records mean; what is behind them is left.
  static func decode(_ encoded: inout [UInt8]) -> [UInt8] {
    var decoded: [UInt8] = []
    var start = 0
    while encoded.count - start >= 2 {
      let size = Int(encoded[start]) << 8 | Int(encoded[start + 1])
      guard encoded.count - start - 2 >= size else { break }
      decoded += encoded[start + 2..<start + 2 + size].map { $0 ^ key }
      start += 2 + size
    }
    encoded.removeFirst(start)
    return decoded
  }

  private static func record(_ bytes: some Collection<UInt8>) -> [UInt8] {
    [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes.map { $0 ^ key }
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) -> Arrival {
    if decoded.isEmpty {
      let room = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.readBytes, alignment: 1)
      defer { room.deallocate() }
      switch inner.read(into: room) {
      case .count(let count, _):
        encoded += room[..<count]
        decoded = Self.decode(&encoded)
      case let other: return other
      }
    }
    guard !decoded.isEmpty else { return .wouldBlock }
    let count = min(decoded.count, buffer.count)
    buffer.copyBytes(from: decoded[..<count])
    decoded.removeFirst(count)
    return .count(count, isMore: !decoded.isEmpty)
  }

  func write(_ bytes: UnsafeRawBufferPointer) -> TransferResult {
    switch flush() {
    case .done: break
    case .partial: return .wouldBlock
    case .failed: return .failed(SystemError("transfer", code: 1))
    }
    let count = min(bytes.count, Self.payloadMax)
    held = Self.record(bytes[..<count])
    _ = flush()
    return .count(count)
  }

  var isHolding: Bool { !held.isEmpty }

  func flush() -> FlushResult {
    while !held.isEmpty {
      switch held.withUnsafeBytes({ inner.write($0) }) {
      case .count(let count): held.removeFirst(count)
      case .wouldBlock: return .partial
      case .ended, .failed: return .failed
      }
    }
    return .done
  }

  func watch(reads: Bool, writes: Bool) throws(SystemError) {
    try inner.watch(reads: reads, writes: writes)
  }

  func shutdownWrite() { inner.shutdownWrite() }
  func close() { inner.close() }
}
