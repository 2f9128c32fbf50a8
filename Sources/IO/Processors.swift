import CSystem
import Glibc

/// The processors that this process may use.
public enum Processors {
  /// How many it may use at the same time, at least 1: those that it may run on, or fewer where a
  /// control group gives it less time. Of a part of a processor nothing is counted.
  public static func usable() -> Int {
    let quota = quota(memberships: text(of: "/proc/self/cgroup") ?? "", read: text)
    return max(1, min(Int(system_processor_count()), quota ?? .max))
  }

  /// Whole processors whose time the control groups give, the tightest of them; nil if none limits.
  /// `memberships` is what `/proc/self/cgroup` says (cgroups(7)), `read` gives a file's text.
  static func quota(memberships: String, read: (String) -> String?) -> Int? {
    var tightest: Int?
    for line in memberships.split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      let isUnified = fields[1].isEmpty
      guard isUnified || fields[1].split(separator: ",").contains("cpu") else { continue }
      let roots =
        isUnified
        ? ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        : ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/\(fields[1])"]
      for directory in roots.flatMap({ directories($0, path: fields[2]) }) {
        guard let found = quota(of: directory, isUnified: isUnified, read) else { continue }
        tightest = min(found, tightest ?? .max)
      }
    }
    return tightest
  }

  /// The group's directory and those above it, whose limits hold as well.
  private static func directories(_ root: String, path: Substring) -> [String] {
    var directories = [root]
    for name in path.split(separator: "/") {
      directories.append(directories[directories.count - 1] + "/" + name)
    }
    return directories
  }

  private static func quota(
    of directory: String, isUnified: Bool, _ read: (String) -> String?
  ) -> Int? {
    let words: [Substring]
    if isUnified {
      guard let text = read(directory + "/cpu.max") else { return nil }
      words = text.split { $0 == " " || $0 == "\n" }
    } else {
      guard let quota = read(directory + "/cpu.cfs_quota_us"),
        let period = read(directory + "/cpu.cfs_period_us")
      else { return nil }
      words = [quota, period].flatMap { $0.split { $0 == " " || $0 == "\n" } }
    }
    // Without a limit the first is "max" or -1.
    guard words.count == 2, let quota = Int(words[0]), let period = Int(words[1]), quota >= 0,
      period > 0
    else { return nil }
    return quota / period
  }

  /// Nil for a file that is not there, as in all but one of the places where a limit may stand.
  private static func text(of path: String) -> String? {
    guard let bytes = try? WholeFile.read(path, bytesMax: 64 << 10) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }
}
