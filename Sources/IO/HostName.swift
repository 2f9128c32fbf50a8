import Glibc

/// What this machine calls itself.
public enum HostName {
  private static let sizeMax = 256

  public static var current: String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: sizeMax) { buffer in
      guard let base = buffer.baseAddress, gethostname(base, sizeMax - 1) == 0 else {
        return "localhost"
      }
      base[sizeMax - 1] = 0
      return String(cString: base)
    }
  }
}
