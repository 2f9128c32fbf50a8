import Glibc

/// Owns an open descriptor and closes it.
public struct FileDescriptor: ~Copyable, Sendable {
  public let raw: Int32

  /// Takes ownership of `raw`.
  public init(owning raw: Int32) {
    self.raw = raw
  }

  deinit {
    _ = Glibc.close(raw)
  }

  /// Reads at most `buffer.count` bytes.
  public func read(into buffer: UnsafeMutableRawBufferPointer) -> TransferResult {
    TransferResult(retrying { Glibc.read(raw, buffer.baseAddress, buffer.count) })
  }

  /// Writes as much as the kernel takes.
  public func write(_ bytes: UnsafeRawBufferPointer) -> TransferResult {
    TransferResult(retrying { Glibc.write(raw, bytes.baseAddress, bytes.count) })
  }
}

/// What a read or a write came to. That it would block is an answer, not an error.
public enum TransferResult: Equatable, Sendable {
  /// So many bytes; for a read never 0.
  case count(Int)
  case wouldBlock
  /// The peer has ended the stream.
  case ended
  case failed(SystemError)

  init(_ result: Int) {
    switch result {
    case 0: self = .ended
    case 1...: self = .count(result)
    default:
      self =
        errno == EAGAIN || errno == EWOULDBLOCK ? .wouldBlock : .failed(SystemError("transfer"))
    }
  }
}
