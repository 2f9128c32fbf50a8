import Glibc
import IO

/// What happens, one line per event, to standard error:
/// `2026-11-21T00:12:33.123Z info  listening on 127.0.0.1:5672`.
package struct Log: Sendable {
  package typealias Level = Options.LogLevel

  let level: Level
  /// Gets the lines instead of standard error.
  private let sink: (@Sendable (String) -> Void)?

  package init(level: Level, sink: (@Sendable (String) -> Void)? = nil) {
    self.level = level
    self.sink = sink
  }

  func debug(_ text: @autoclosure () -> String) { write(.debug, text) }
  func info(_ text: @autoclosure () -> String) { write(.info, text) }
  func warning(_ text: @autoclosure () -> String) { write(.warning, text) }
  func error(_ text: @autoclosure () -> String) { write(.error, text) }

  private func write(_ level: Level, _ text: () -> String) {
    guard level.rank >= self.level.rank else { return }
    if let sink { return sink(text()) }
    let name = level.rawValue
    let padding = String(repeating: " ", count: max(0, 7 - name.count))
    let line = "\(Self.timestamp()) \(name)\(padding) \(Self.printable(text()))\n"
    // One write for each line, so that lines never mix. Nobody is left to be told if it fails.
    _ = line.utf8.withContiguousStorageIfAvailable { bytes in
      Glibc.write(2, bytes.baseAddress, bytes.count)
    }
  }

  /// A client's words must not forge lines.
  private static func printable(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: { $0.value < 32 || $0.value == 127 }) else {
      return text
    }
    return text.unicodeScalars.reduce(into: "") { result, scalar in
      if scalar.value < 32 || scalar.value == 127 {
        result += "\\u{\(String(scalar.value, radix: 16))}"
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
  }

  private static func timestamp() -> String {
    let now = Clock.wallMilliseconds()
    var seconds = time_t(now / 1000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    return digits(Int(parts.tm_year) + 1900, 4) + "-" + digits(Int(parts.tm_mon) + 1, 2) + "-"
      + digits(Int(parts.tm_mday), 2) + "T" + digits(Int(parts.tm_hour), 2) + ":"
      + digits(Int(parts.tm_min), 2) + ":" + digits(Int(parts.tm_sec), 2) + "."
      + digits(Int(now % 1000), 3) + "Z"
  }

  private static func digits(_ value: Int, _ width: Int) -> String {
    let text = String(value)
    return String(repeating: "0", count: max(0, width - text.count)) + text
  }
}

extension Options.LogLevel {
  fileprivate var rank: Int {
    switch self {
    case .debug: 0
    case .info: 1
    case .warning: 2
    case .error: 3
    }
  }
}
