import Glibc

/// How many descriptors this process may have open.
public enum DescriptorLimit {
  /// Raises it as far as an unprivileged process may; returns what it is then.
  @discardableResult
  public static func raise() -> Int {
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var limit = rlimit()
    getrlimit(resource, &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(resource, &limit)
    getrlimit(resource, &limit)
    return Int(clamping: limit.rlim_cur)
  }
}
