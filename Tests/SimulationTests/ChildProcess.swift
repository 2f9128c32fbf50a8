import Base
import Glibc

/// Programs of this build, each in a process of its own: a defect may stop it.
enum ChildProcess {
  struct Result {
    let status: Int32
    let lines: [String]
  }

  /// Of the program that runs the tests.
  private static let own: String = {
    guard let path = realpath("/proc/self/exe", nil) else { return "" }
    defer { free(path) }
    return String(cString: path)
  }()

  /// Beside the program that runs the tests.
  private static let simulator: String = {
    let inBuild = String(own[..<(own.lastIndex(of: "/") ?? own.startIndex)]) + "/simulate"
    return access(inBuild, X_OK) == 0 ? inBuild : ".build/debug/simulate"
  }()

  static func simulate(_ words: [String]) -> Result {
    run(([simulator] + words).joined(separator: " "))
  }

  /// One test of these, with a defect switched on.
  static func test(_ name: String, with defect: Sabotage) -> Result {
    run(
      "env MARTLET_TEST_DEFECT=\(defect.rawValue) \(own) --testing-library swift-testing --filter \(name)"
    )
  }

  private static func run(_ command: String) -> Result {
    guard let output = popen("exec \(command) 2>&1", "r") else {
      return Result(status: -1, lines: ["\(command) could not be started"])
    }
    var text: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = fread(&buffer, 1, buffer.count, output)
      if count == 0 { break }
      text += buffer[..<count]
    }
    let status = pclose(output)
    return Result(
      status: status >> 8,
      lines: String(decoding: text, as: UTF8.self).split(separator: "\n").map(String.init))
  }
}
