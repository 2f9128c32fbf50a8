import Glibc

/// The command `simulate` of this build, in a process of its own: a defect may stop it.
enum SimulateCommand {
  struct Result {
    let status: Int32
    let lines: [String]
  }

  /// Beside the program that runs the tests.
  private static let path: String = {
    guard let path = realpath("/proc/self/exe", nil) else { return "simulate" }
    defer { free(path) }
    let own = String(cString: path)
    let inBuild = directory(own) + "/simulate"
    return access(inBuild, X_OK) == 0 ? inBuild : ".build/debug/simulate"
  }()

  private static func directory(_ path: String) -> String {
    String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
  }

  static func run(_ words: [String]) -> Result {
    let command = ([path] + words).joined(separator: " ")
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
