import Glibc

/// Results on standard output, in large pieces.
struct StandardOutput: ~Copyable {
  private var buffer: [UInt8] = []

  /// So much is gathered before it is written.
  static let bufferSizeMax = 65_536

  var isFull: Bool { buffer.count >= Self.bufferSizeMax }

  mutating func append(_ bytes: [UInt8]) {
    buffer += bytes
  }

  /// Writes all that was appended. Only what is written has reached anybody.
  mutating func flush() throws(Failure) {
    var start = 0
    while start < buffer.count {
      let count = buffer.withUnsafeBytes { bytes in
        Glibc.write(STDOUT_FILENO, bytes.baseAddress! + start, bytes.count - start)
      }
      if count > 0 {
        start += count
      } else if errno == EAGAIN {
        // Whoever shares the terminal or the pipe has made it non-blocking.
        var wait = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
        _ = poll(&wait, 1, -1)
      } else if errno != EINTR {
        throw Failure(
          errno == EPIPE
            ? "nobody reads the output any more"
            : "the output cannot be written: \(String(cString: strerror(errno)))")
      }
    }
    buffer.removeAll(keepingCapacity: true)
  }
}
