import Glibc

/// A worker in a process of its own, whose lines are read as they come.
final class WorkerProcess {
  private let process: pid_t
  /// Where its lines come from; nil once it has closed it.
  let descriptor: Int32
  private var unread: [UInt8] = []

  /// Runs a program on one processor; without it all is only slower.
  private static let pinner = "/usr/bin/taskset"

  /// Starts this program again with other words, on one processor: its threads take turns.
  init(_ words: [String], processor: Int) {
    var ends: [Int32] = [0, 0]
    pipe(&ends)
    // A later worker must not keep the end of an earlier one open.
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2)
    var arguments = [Self.program, "--worker"] + words
    if access(Self.pinner, X_OK) == 0 {
      let count = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
      arguments = [Self.pinner, "-c", "\(processor % count)"] + arguments
    }
    var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    var environment: [UnsafeMutablePointer<CChar>?] = Self.environment.map { strdup($0) } + [nil]
    var process = pid_t()
    let failed = posix_spawn(
      &process, arguments[0], &actions, nil, &pointers, &environment)
    for pointer in pointers + environment { free(pointer) }
    posix_spawn_file_actions_destroy(&actions)
    close(ends[1])
    guard failed == 0 else { fatalError("a worker could not be started: error \(failed)") }
    self.process = process
    descriptor = ends[0]
  }

  private static let program: String = {
    guard let path = realpath("/proc/self/exe", nil) else { return CommandLine.arguments[0] }
    defer { free(path) }
    return String(cString: path)
  }()

  /// Hashing must not depend on the process, or a seed would not always give the same run.
  private static let environment: [String] = {
    var result = ["SWIFT_DETERMINISTIC_HASHING=1", "SWIFT_BACKTRACE=enable=no"]
    for name in ["PATH", "HOME", "LD_LIBRARY_PATH"] {
      if let value = getenv(name) { result.append("\(name)=\(String(cString: value))") }
    }
    return result
  }()

  /// The lines that have come, waiting for some; nil at the end.
  func readLines() -> [String]? {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    let count = read(descriptor, &buffer, buffer.count)
    if count < 0, errno == EINTR { return [] }
    guard count > 0 else { return nil }
    unread += buffer[..<count]
    guard let end = unread.lastIndex(of: 10) else { return [] }
    let lines = unread[..<end].split(separator: 10).map { String(decoding: $0, as: UTF8.self) }
    unread.removeFirst(end + 1)
    return lines
  }

  /// Waits for its end. Returns whether it ended in order.
  func end(kills: Bool = false) -> Bool {
    if kills { kill(process, SIGKILL) }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    close(descriptor)
    return status == 0
  }
}

/// Writes a line at once.
func say(_ line: String) {
  write(1, line + "\n")
}

/// What is not for whoever reads the lines.
func showProgress(_ text: String) {
  write(2, text)
}

private func write(_ descriptor: Int32, _ text: String) {
  var rest = Array(text.utf8)[...]
  while !rest.isEmpty {
    let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    guard count > 0 || errno == EINTR else { return }
    rest = rest.dropFirst(max(0, count))
  }
}
