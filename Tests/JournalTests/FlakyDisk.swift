import IO
import Synchronization

/// The real disk, but for names: renaming, or making names durable, fails when it is asked to.
final class FlakyDisk: Disk {
  enum Operation {
    case rename, syncDirectory
  }

  private struct State {
    var failing: Operation?
    /// So many of them still succeed.
    var left = 0
    var areNamesDurable = true
  }

  private let disk = SystemDisk()
  private let state = Mutex(State())

  /// The operation fails once, after it has succeeded so many times.
  func fail(_ operation: Operation, after count: Int = 0) {
    state.withLock { state in
      state.failing = operation
      state.left = count
    }
  }

  var areNamesDurable: Bool { state.withLock { $0.areNamesDurable } }

  private func enter(_ operation: Operation, _ path: String) throws(SystemError) {
    let fails = state.withLock { state in
      guard state.failing == operation else { return false }
      state.left -= 1
      if state.left >= 0 { return false }
      state.failing = nil
      return true
    }
    if fails { throw SystemError("\(operation) \(path)", code: 5) }
  }

  func syncDirectory(_ path: String) throws(SystemError) {
    try enter(.syncDirectory, path)
    try disk.syncDirectory(path)
    state.withLock { $0.areNamesDurable = true }
  }

  func rename(_ from: String, _ to: String) throws(SystemError) {
    try enter(.rename, from)
    try disk.rename(from, to)
    state.withLock { $0.areNamesDurable = false }
  }

  func open(
    _ path: String, _ access: File.Access, creates: Bool
  ) throws(SystemError) -> any DiskFile {
    try disk.open(path, access, creates: creates)
  }

  func makeDirectories(_ path: String) throws(SystemError) { try disk.makeDirectories(path) }
  func list(_ path: String) throws(SystemError) -> [String] { try disk.list(path) }
  func exists(_ path: String) -> Bool { disk.exists(path) }
  func kind(_ path: String) -> FileKind { disk.kind(path) }
  func remove(_ path: String) throws(SystemError) { try disk.remove(path) }
  func freeBytes(_ path: String) throws(SystemError) -> Int { try disk.freeBytes(path) }
}
