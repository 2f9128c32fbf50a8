import Glibc
import IO

/// What happens, one line per event:
/// `2026-11-21T00:12:33.123Z info  listening on 127.0.0.1:5672`.
package struct Log: Sendable {
  package typealias Level = Options.LogLevel

  let level: Level
  private let destination: Destination

  private enum Destination {
    case nobody
    case writer(LogWriter)
    /// Gets each text as it is, and every one.
    case sink(@Sendable (String) -> Void)
  }

  init(level: Level, writer: LogWriter) {
    self.level = level
    destination = .writer(writer)
  }

  /// For tests: without a sink nobody reads it.
  package init(level: Level, sink: (@Sendable (String) -> Void)? = nil) {
    self.level = level
    destination = sink.map { .sink($0) } ?? .nobody
  }

  func debug(_ text: @autoclosure () -> String) { write(.debug, text) }
  func info(_ text: @autoclosure () -> String) { write(.info, text) }
  func warning(_ text: @autoclosure () -> String) { write(.warning, text) }
  func error(_ text: @autoclosure () -> String) { write(.error, text) }

  /// What may happen very often, caused by the peer called `name`: told in full a few times, and
  /// then counted.
  func tell(_ kind: LogKind, of name: String, _ text: @autoclosure () -> String) {
    guard isTold(kind.level) else { return }
    // Whoever looks for details gets them all.
    if case .writer(let writer) = destination, level != .debug, !writer.admits(kind, of: name) {
      return
    }
    write(kind.level, text)
  }

  private func isTold(_ level: Level) -> Bool { level.rank >= self.level.rank }

  private func write(_ level: Level, _ text: () -> String) {
    guard isTold(level) else { return }
    switch destination {
    case .nobody: break
    case .writer(let writer): writer.append(Self.line(level, text()))
    case .sink(let sink): sink(text())
    }
  }

  /// The line, with its end.
  static func line(_ level: Level, _ text: String) -> String {
    let name = level.rawValue
    let padding = String(repeating: " ", count: max(0, 7 - name.count))
    return "\(timestamp()) \(name)\(padding) \(LogText.line(text))\n"
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
