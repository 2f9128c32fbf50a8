import Glibc

/// The process we run in.
public enum ThisProcess {
  public static var id: Int32 { getpid() }

  /// Allows as many open descriptors as an unprivileged process may have; returns how many.
  @discardableResult
  public static func raiseDescriptorLimit() -> Int {
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var limit = rlimit()
    getrlimit(resource, &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(resource, &limit)
    getrlimit(resource, &limit)
    return Int(clamping: limit.rlim_cur)
  }

  public static func exit(_ status: Int32) -> Never {
    Glibc.exit(status)
  }
}

/// Standard error, without the output buffer that standard output has.
public enum StandardError {
  public static var isTerminal: Bool { isatty(2) == 1 }

  /// Writes a line.
  public static func print(_ line: String) {
    var bytes = Array((line + "\n").utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { room in
        retrying { write(2, room.baseAddress, room.count) }
      }
      guard count > 0 else { return }
      bytes = bytes.dropFirst(count)
    }
  }
}
