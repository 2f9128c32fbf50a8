import CSystem

/// The variables that the process was started with.
public enum Environment {
  /// A copy; of a name that stands twice the first counts. Not to be called while another thread
  /// changes the environment, which Martlet never does.
  public static func variables() -> [String: String] {
    var variables: [String: String] = [:]
    guard var next = system_environment() else { return variables }
    while let entry = next.pointee {
      let parts = String(cString: entry).split(
        separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = String(parts[0])
      if parts.count == 2, variables[name] == nil { variables[name] = String(parts[1]) }
      next += 1
    }
    return variables
  }
}
