import Glibc
import IO
import Synchronization

/// The real disk, with a say before each operation: it may fail it, or look at what a crash at this
/// moment would leave behind. Nothing is really synced: what the process wrote survives it.
package final class FaultyDisk: Disk {
  package enum Operation: String, CaseIterable, Sendable {
    case open, list, rename, remove, syncDirectory, read, write, sync, allocate, punch
  }

  /// Called before each operation, on whatever thread does it, with the path; returns the number of
  /// the error that it ends with, and nil if it may go on.
  package typealias Rule = @Sendable (Operation, String) -> Int32?

  /// A closure that is read out of a mutex is wrapped once more each time; an object is not.
  private final class Rules: Sendable {
    let rule: Rule

    init(_ rule: @escaping Rule) { self.rule = rule }
  }

  private let rules = Mutex<Rules?>(nil)
  private let disk = SystemDisk()

  package init() {}

  package func set(_ rule: Rule?) {
    let made = rule.map { Rules($0) }
    rules.withLock { $0 = made }
  }

  /// Fails operations of a kind on paths that contain `part`, from the `first`-th on, `count` times.
  package func fail(
    _ operation: Operation, _ part: String = "", first: Int = 1, count: Int = .max,
    code: Int32 = EIO
  ) {
    let seen = Counter()
    set { kind, path in
      guard kind == operation, Self.contains(path, part) else { return nil }
      let number = seen.next()
      return number >= first && number - first < count ? code : nil
    }
  }

  package static func contains(_ path: String, _ part: String) -> Bool {
    let (path, part) = (Array(path.utf8), Array(part.utf8))
    guard path.count >= part.count else { return false }
    return (0...path.count - part.count).contains { path[$0...].starts(with: part) }
  }

  /// Counts up from 1.
  package final class Counter: Sendable {
    private let value = Mutex(0)

    package init() {}

    package var count: Int { value.withLock { $0 } }

    @discardableResult
    package func next() -> Int {
      value.withLock { value in
        value += 1
        return value
      }
    }
  }

  fileprivate func check(_ operation: Operation, _ path: String) throws(SystemError) {
    let rules = rules.withLock { $0 }
    if let code = rules?.rule(operation, path) {
      throw SystemError("\(operation.rawValue) \(path)", code: code)
    }
  }

  // MARK: Disk

  package func open(
    _ path: String, _ access: File.Access, creates: Bool
  ) throws(SystemError) -> any DiskFile {
    try check(.open, path)
    let access = access == .read ? access : .readWrite
    return FaultyFile(self, try disk.open(path, access, creates: creates))
  }

  package func makeDirectories(_ path: String) throws(SystemError) {
    try disk.makeDirectories(path)
  }

  package func list(_ path: String) throws(SystemError) -> [String] {
    try check(.list, path)
    return try disk.list(path)
  }

  package func exists(_ path: String) -> Bool { disk.exists(path) }
  package func kind(_ path: String) -> FileKind { disk.kind(path) }

  package func rename(_ from: String, _ to: String) throws(SystemError) {
    try check(.rename, to)
    try disk.rename(from, to)
  }

  package func remove(_ path: String) throws(SystemError) {
    try check(.remove, path)
    try disk.remove(path)
  }

  package func syncDirectory(_ path: String) throws(SystemError) {
    try check(.syncDirectory, path)
  }

  package func freeBytes(_ path: String) throws(SystemError) -> Int {
    try disk.freeBytes(path)
  }
}

private final class FaultyFile: DiskFile {
  private let disk: FaultyDisk
  private let file: any DiskFile

  init(_ disk: FaultyDisk, _ file: any DiskFile) {
    self.disk = disk
    self.file = file
  }

  var path: String { file.path }
  var size: Int { get throws(SystemError) { try file.size } }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
    try disk.check(.read, path)
    return try file.read(at: offset, into: buffer)
  }

  func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) {
    try disk.check(.write, path)
    try file.write(at: offset, bytes)
  }

  func write(
    at offset: Int, vectors: UnsafeMutableBufferPointer<iovec>
  ) throws(SystemError) {
    try disk.check(.write, path)
    try file.write(at: offset, vectors: vectors)
  }

  func sync() throws(SystemError) {
    try disk.check(.sync, path)
  }

  func allocate(size: Int) throws(SystemError) {
    try disk.check(.allocate, path)
    try file.allocate(size: size)
  }

  func punch(at offset: Int, count: Int) throws(SystemError) {
    try disk.check(.punch, path)
    try file.punch(at: offset, count: count)
  }
}
