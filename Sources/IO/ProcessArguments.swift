/// The words that this process was started with.
public enum ProcessArguments {
  private static let bytesMax = 16 << 20

  /// All of them, the program's own name first, as the kernel knows them. Swift's runtime looks for
  /// them on the stack, beside the environment, and finds none when something that was preloaded,
  /// such as libfaketime, has moved the environment; so it is asked only where there is no `/proc`.
  public static func words() -> [String] {
    do throws(SystemError) {
      let bytes = try WholeFile.read("/proc/self/cmdline", bytesMax: bytesMax)
      if !bytes.isEmpty { return split(bytes) }
    } catch {}
    return CommandLine.arguments
  }

  /// Words that each end with a zero byte; an empty word is one, too.
  static func split(_ bytes: [UInt8]) -> [String] {
    var words = bytes.split(separator: 0, omittingEmptySubsequences: false)
    if words.last?.isEmpty == true { words.removeLast() }
    return words.map { String(decoding: $0, as: UTF8.self) }
  }
}
