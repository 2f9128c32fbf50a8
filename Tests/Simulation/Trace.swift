/// What happened, step by step. Words are made only when somebody will read them.
package final class Trace: @unchecked Sendable {
  let isOn: Bool
  private var lines: [String] = []
  private var lineCount = 0

  private static let linesMax = 20_000

  init(isOn: Bool) {
    self.isOn = isOn
  }

  func note(_ text: @autoclosure () -> String) {
    guard isOn else { return }
    lineCount += 1
    lines.append("\(lineCount) \(text())")
    if lines.count > 2 * Self.linesMax { lines.removeFirst(Self.linesMax) }
  }

  package func last(_ count: Int) -> [String] { Array(lines.suffix(count)) }
}
