import CSystem
import Glibc

/// A file that is read and written at offsets.
public struct File: ~Copyable, Sendable {
  public let descriptor: FileDescriptor
  /// For messages only.
  public let path: String

  public enum Access: Sendable {
    case read
    /// Through the page cache; `sync` makes it durable.
    case readWrite
    /// Past the page cache, durable when the write returns. Memory, offset and size must be multiples
    /// of 4096.
    case writeThrough
  }

  public init(_ path: String, _ access: Access, creates: Bool = false) throws(SystemError) {
    let flags =
      switch access {
      case .read: O_RDONLY
      case .readWrite: O_RDWR
      case .writeThrough: O_RDWR | O_DSYNC | system_open_direct_flag()
      }
    let raw = retrying { open(path, flags | O_CLOEXEC | (creates ? O_CREAT : 0), 0o640) }
    guard raw >= 0 else { throw SystemError("open \(path)") }
    descriptor = FileDescriptor(owning: raw)
    self.path = path
  }

  public var size: Int {
    get throws(SystemError) {
      var status = stat()
      guard fstat(descriptor.raw, &status) == 0 else { throw SystemError("stat \(path)") }
      return Int(status.st_size)
    }
  }

  /// Reads until `buffer` is full or the file ends; returns the bytes read.
  public func read(
    at offset: Int, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> Int {
    var done = 0
    while done < buffer.count {
      let count = retrying {
        pread(descriptor.raw, buffer.baseAddress! + done, buffer.count - done, offset + done)
      }
      guard count >= 0 else { throw SystemError("read \(path)") }
      if count == 0 { break }
      done += count
    }
    return done
  }

  public func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) {
    var done = 0
    while done < bytes.count {
      let count = retrying {
        pwrite(descriptor.raw, bytes.baseAddress! + done, bytes.count - done, offset + done)
      }
      guard count >= 0 else { throw SystemError("write \(path)") }
      done += count
    }
  }

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

  /// Writes all vectors, one behind the other.
  public func write(
    at offset: Int, vectors: UnsafeMutableBufferPointer<iovec>
  ) throws(SystemError) {
    var position = offset
    var next = 0
    while next < vectors.count {
      let batch = min(vectors.count - next, 512)
      let count = retrying {
        pwritev(descriptor.raw, vectors.baseAddress! + next, Int32(batch), position)
      }
      guard count > 0 else { throw SystemError("write \(path)") }
      position += count
      next = Self.skip(count, in: vectors, from: next)
    }
  }

  /// Makes what was written durable, without metadata that no reader needs.
  public func sync() throws(SystemError) {
    guard retrying({ fdatasync(descriptor.raw) }) == 0 else { throw SystemError("sync \(path)") }
  }

  /// Reserves blocks on the disk for the first `size` bytes, which read as zero.
  public func allocate(size: Int) throws(SystemError) {
    let error = posix_fallocate(descriptor.raw, 0, size)
    guard error == 0 else { throw SystemError("allocate \(path)", code: error) }
  }

  /// Gives the blocks of a range back to the file system; it reads as zero. Does nothing where the
  /// file system cannot.
  public func punch(at offset: Int, count: Int) throws(SystemError) {
    guard retrying({ system_punch_hole(descriptor.raw, Int64(offset), Int64(count)) }) != 0 else {
      return
    }
    guard errno == EOPNOTSUPP || errno == ENOSYS else { throw SystemError("punch \(path)") }
  }

  /// Drops `count` bytes of `vectors` from the front; returns the first vector that is left.
  private static func skip(
    _ count: Int, in vectors: UnsafeMutableBufferPointer<iovec>, from start: Int
  ) -> Int {
    var left = count
    var index = start
    while index < vectors.count, left >= vectors[index].iov_len {
      left -= vectors[index].iov_len
      index += 1
    }
    if left > 0 {
      vectors[index].iov_base += left
      vectors[index].iov_len -= left
    }
    return index
  }
}

/// Directories and names.
public enum FileSystem {
  public static func makeDirectories(_ path: String) throws(SystemError) {
    var partial = path.hasPrefix("/") ? "/" : ""
    for part in path.split(separator: "/") {
      partial += part
      if mkdir(partial, 0o750) != 0, errno != EEXIST { throw SystemError("make \(partial)") }
      partial += "/"
    }
  }

  /// The names in a directory, sorted.
  public static func list(_ path: String) throws(SystemError) -> [String] {
    guard let directory = opendir(path) else { throw SystemError("list \(path)") }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  public static func exists(_ path: String) -> Bool {
    access(path, F_OK) == 0
  }

  public static func rename(_ from: String, _ to: String) throws(SystemError) {
    guard Glibc.rename(from, to) == 0 else { throw SystemError("rename \(from) to \(to)") }
  }

  /// Lets two names change places at once; both exist.
  public static func exchange(_ one: String, _ other: String) throws(SystemError) {
    guard system_exchange(one, other) == 0 else {
      throw SystemError("exchange \(one) and \(other)")
    }
  }

  /// Gives a file another name, or copies it where the file system cannot.
  public static func link(_ path: String, as other: String) throws(SystemError) {
    guard Glibc.link(path, other) != 0 else { return }
    guard errno == EPERM || errno == EOPNOTSUPP || errno == EMLINK || errno == EXDEV else {
      throw SystemError("link \(path)")
    }
    let source = try File(path, .read)
    let target = try File(other, .readWrite, creates: true)
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    defer { chunk.deallocate() }
    var offset = 0
    while case let count = try source.read(at: offset, into: chunk), count > 0 {
      try target.write(at: offset, UnsafeRawBufferPointer(rebasing: chunk[..<count]))
      offset += count
    }
    try target.sync()
  }

  /// What the name stands for, behind a link if it is one.
  public static func kind(_ path: String) -> FileKind {
    var status = stat()
    if stat(path, &status) == 0 { return status.st_mode & S_IFMT == S_IFREG ? .file : .other }
    // A link that leads nowhere is there all the same; what cannot be looked at is left to whoever
    // opens it, and says why.
    guard errno == ENOENT || errno == ELOOP || errno == ENOTDIR else { return .file }
    return lstat(path, &status) == 0 ? .other : .missing
  }

  public static func isDirectory(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  public static func remove(_ path: String) throws(SystemError) {
    guard unlink(path) == 0 || errno == ENOENT else { throw SystemError("remove \(path)") }
  }

  /// Removes a directory that is empty.
  public static func removeDirectory(_ path: String) throws(SystemError) {
    guard rmdir(path) == 0 else { throw SystemError("remove \(path)") }
  }

  /// Makes names that were added to or removed from a directory durable.
  public static func syncDirectory(_ path: String) throws(SystemError) {
    let raw = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard raw >= 0 else { throw SystemError("open \(path)") }
    let descriptor = FileDescriptor(owning: raw)
    guard retrying({ fsync(descriptor.raw) }) == 0 else { throw SystemError("sync \(path)") }
  }

  /// Bytes that an ordinary user may still write to the file system of `path`.
  public static func freeBytes(_ path: String) throws(SystemError) -> Int {
    var status = statvfs()
    guard statvfs(path, &status) == 0 else { throw SystemError("stat file system of \(path)") }
    return Int(status.f_bavail) * Int(status.f_frsize)
  }

  public static func readWhole(_ path: String) throws(SystemError) -> [UInt8] {
    let file = try File(path, .read)
    let size = try file.size
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
    defer { buffer.deallocate() }
    let count = try file.read(at: 0, into: buffer)
    return Array(buffer.prefix(count))
  }
}
