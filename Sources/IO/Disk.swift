import Glibc

/// Files as the journal uses them: all that it asks of a disk. `SystemDisk` is the real one; a
/// simulator has one that loses, tears and fails.
public protocol Disk: Sendable {
  func open(_ path: String, _ access: File.Access, creates: Bool) throws(SystemError)
    -> any DiskFile
  func makeDirectories(_ path: String) throws(SystemError)
  /// The names in a directory, sorted.
  func list(_ path: String) throws(SystemError) -> [String]
  func exists(_ path: String) -> Bool
  /// What the name stands for, behind a link if it is one.
  func kind(_ path: String) -> FileKind
  /// Replaces what has the new name. Durable after `syncDirectory`.
  func rename(_ from: String, _ to: String) throws(SystemError)
  /// Does nothing when there is no such file.
  func remove(_ path: String) throws(SystemError)
  /// Makes names that were added to or removed from a directory durable.
  func syncDirectory(_ path: String) throws(SystemError)
  /// Bytes that an ordinary user may still write to the file system of `path`.
  func freeBytes(_ path: String) throws(SystemError) -> Int
}

/// What a name stands for.
public enum FileKind: Sendable {
  case file
  /// A directory, a device, a link that leads nowhere.
  case other
  case missing
}

/// A file of a `Disk`, closed with its last reference.
public protocol DiskFile: AnyObject, Sendable {
  /// For messages only.
  var path: String { get }
  var size: Int { get throws(SystemError) }
  /// Reads until `buffer` is full or the file ends; returns the bytes read.
  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int
  func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError)
  /// Writes all vectors, one behind the other; changes them.
  func write(at offset: Int, vectors: UnsafeMutableBufferPointer<iovec>) throws(SystemError)
  /// Makes what was written durable, without metadata that no reader needs.
  func sync() throws(SystemError)
  /// Reserves blocks on the disk for the first `size` bytes, which read as zero.
  func allocate(size: Int) throws(SystemError)
  /// Gives the blocks of a range back to the file system; it reads as zero. Does nothing where the
  /// file system cannot.
  func punch(at offset: Int, count: Int) throws(SystemError)
}

extension Disk {
  /// For disks on which there are only files.
  public func kind(_ path: String) -> FileKind { exists(path) ? .file : .missing }

  public func open(_ path: String, _ access: File.Access) throws(SystemError) -> any DiskFile {
    try open(path, access, creates: false)
  }

  public func readWhole(_ path: String) throws(SystemError) -> [UInt8] {
    let file = try open(path, .read)
    let size = try file.size
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
    defer { buffer.deallocate() }
    let count = try file.read(at: 0, into: buffer)
    return Array(buffer.prefix(count))
  }
}

extension DiskFile {
  public func write(at offset: Int, _ bytes: [UInt8]) throws(SystemError) {
    let failure: SystemError? = bytes.withUnsafeBytes { buffer in
      do throws(SystemError) {
        try write(at: offset, buffer)
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw failure }
  }
}

/// The disk that the kernel has.
public struct SystemDisk: Disk {
  public init() {}

  public func open(
    _ path: String, _ access: File.Access, creates: Bool
  ) throws(SystemError) -> any DiskFile {
    SystemFile(try File(path, access, creates: creates))
  }

  public func makeDirectories(_ path: String) throws(SystemError) {
    try FileSystem.makeDirectories(path)
  }

  public func list(_ path: String) throws(SystemError) -> [String] {
    try FileSystem.list(path)
  }

  public func exists(_ path: String) -> Bool { FileSystem.exists(path) }
  public func kind(_ path: String) -> FileKind { FileSystem.kind(path) }

  public func rename(_ from: String, _ to: String) throws(SystemError) {
    try FileSystem.rename(from, to)
  }

  public func remove(_ path: String) throws(SystemError) {
    try FileSystem.remove(path)
  }

  public func syncDirectory(_ path: String) throws(SystemError) {
    try FileSystem.syncDirectory(path)
  }

  public func freeBytes(_ path: String) throws(SystemError) -> Int {
    try FileSystem.freeBytes(path)
  }
}

private final class SystemFile: DiskFile {
  private let file: File

  init(_ file: consuming File) {
    self.file = file
  }

  var path: String { file.path }
  var size: Int { get throws(SystemError) { try file.size } }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
    try file.read(at: offset, into: buffer)
  }

  func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) {
    try file.write(at: offset, bytes)
  }

  func write(
    at offset: Int, vectors: UnsafeMutableBufferPointer<iovec>
  ) throws(SystemError) {
    try file.write(at: offset, vectors: vectors)
  }

  func sync() throws(SystemError) {
    try file.sync()
  }

  func allocate(size: Int) throws(SystemError) {
    try file.allocate(size: size)
  }

  func punch(at offset: Int, count: Int) throws(SystemError) {
    try file.punch(at: offset, count: count)
  }
}
