import Glibc

/// Holds a directory for one process: advisory locks on the directory itself and on a file in it, which
/// end with the process. The file says who has it; that somebody removes it lets nobody else in.
public struct DirectoryLock: ~Copyable, Sendable {
  private let file: File
  /// Holds the directory's lock, where the file system can lock directories.
  private let directory: FileDescriptor
  /// What the last process noted in the file.
  public let note: String?

  private static let textBytesMax = 4096

  /// nil when another process has the lock.
  public init?(directory path: String) throws(SystemError) {
    let directory = FileDescriptor(owning: try Self.openDirectory(path))
    let isLockable = flock(directory.raw, LOCK_EX | LOCK_NB) == 0
    if !isLockable, errno == EWOULDBLOCK { return nil }
    let file = try File(path + "/lock", .readWrite, creates: true)
    guard flock(file.descriptor.raw, LOCK_EX | LOCK_NB) == 0 else {
      if errno == EWOULDBLOCK { return nil }
      throw SystemError("lock \(path)")
    }
    let note = try Self.lines(path).dropFirst().first
    try Self.write(note, to: file)
    self.note = note
    self.file = file
    self.directory = directory
  }

  /// Keeps a word for the next process that takes the lock.
  public func keep(note: String) throws(SystemError) {
    try Self.write(note, to: file)
  }

  private static func write(_ note: String?, to file: borrowing File) throws(SystemError) {
    let text = "\(getpid())\n" + (note.map { $0 + "\n" } ?? "")
    _ = ftruncate(file.descriptor.raw, 0)
    try file.write(at: 0, Array(text.utf8))
  }

  private static func openDirectory(_ path: String) throws(SystemError) -> Int32 {
    let raw = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard raw >= 0 else { throw SystemError("open \(path)") }
    return raw
  }

  private static func lines(_ directory: String) throws(SystemError) -> [String] {
    let bytes = try WholeFile.read(directory + "/lock", bytesMax: textBytesMax)
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
  }

  /// Who has the lock now. Changes nothing.
  public enum Holder: Equatable, Sendable {
    case nobody
    /// The process as the file names it, if it does.
    case process(Int?)
  }

  public static func holder(of directory: String) throws(SystemError) -> Holder {
    let descriptor = FileDescriptor(owning: try openDirectory(directory))
    if try isFree(descriptor.raw, directory) {
      guard FileSystem.exists(directory + "/lock") else { return .nobody }
      let file = try File(directory + "/lock", .read)
      if try isFree(file.descriptor.raw, directory) { return .nobody }
    }
    return .process(process(holding: directory))
  }

  /// The process that the file names; it need not be there any more.
  public static func process(holding directory: String) -> Int? {
    do throws(SystemError) {
      return try lines(directory).first.flatMap { Int($0) }
    } catch {
      return nil
    }
  }

  /// What the last process noted; nil if it noted nothing, or nothing can be read.
  public static func note(in directory: String) -> String? {
    do throws(SystemError) {
      return try lines(directory).dropFirst().first
    } catch {
      return nil
    }
  }

  private static func isFree(_ raw: Int32, _ path: String) throws(SystemError) -> Bool {
    if flock(raw, LOCK_SH | LOCK_NB) == 0 { return true }
    return errno != EWOULDBLOCK
  }
}

/// What a name led to at some moment.
public struct PlaceOnDisk: Sendable {
  public let path: String
  private let device: dev_t
  private let inode: ino_t

  public init(_ path: String) throws(SystemError) {
    var status = stat()
    guard stat(path, &status) == 0 else { throw SystemError("stat \(path)") }
    self.path = path
    device = status.st_dev
    inode = status.st_ino
  }

  /// The name still leads there.
  public var isThere: Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_dev == device && status.st_ino == inode
  }
}
