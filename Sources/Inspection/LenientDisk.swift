import Glibc
import IO

/// A disk on which what is missing or cannot be read is zero: for reading past damage. Nothing is
/// written through it.
struct LenientDisk: Disk {
  let disk: any Disk

  func open(
    _ path: String, _ access: File.Access, creates: Bool
  ) throws(SystemError) -> any DiskFile {
    guard disk.kind(path) == .file else { return LenientFile(path: path, file: nil) }
    return LenientFile(path: path, file: try disk.open(path, .read))
  }

  func makeDirectories(_ path: String) throws(SystemError) { throw Self.refusal(path) }
  func list(_ path: String) throws(SystemError) -> [String] { try disk.list(path) }
  func exists(_ path: String) -> Bool { disk.exists(path) }
  func kind(_ path: String) -> FileKind { disk.kind(path) }
  func rename(_ from: String, _ to: String) throws(SystemError) { throw Self.refusal(from) }
  func remove(_ path: String) throws(SystemError) { throw Self.refusal(path) }
  func syncDirectory(_ path: String) throws(SystemError) { throw Self.refusal(path) }
  func freeBytes(_ path: String) throws(SystemError) -> Int { try disk.freeBytes(path) }

  static func refusal(_ path: String) -> SystemError { SystemError("change \(path)", code: EROFS) }
}

private final class LenientFile: DiskFile {
  let path: String
  private let file: (any DiskFile)?

  init(path: String, file: (any DiskFile)?) {
    self.path = path
    self.file = file
  }

  var size: Int { get throws(SystemError) { try file?.size ?? 0 } }

  func read(
    at offset: Int, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> Int {
    var done = 0
    do throws(SystemError) {
      done = try file?.read(at: offset, into: buffer) ?? 0
    } catch {
      guard error.code == EIO, let file else { throw error }
      readPages(file, offset, buffer)
      done = buffer.count
    }
    let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
    rest.initializeMemory(as: UInt8.self, repeating: 0)
    return buffer.count
  }

  /// Reads what can be read, page by page.
  private func readPages(
    _ file: any DiskFile, _ offset: Int, _ buffer: UnsafeMutableRawBufferPointer
  ) {
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    var done = 0
    while done < buffer.count {
      let count = min(4096 - (offset + done) % 4096, buffer.count - done)
      let page = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count])
      do throws(SystemError) {
        _ = try file.read(at: offset + done, into: page)
      } catch {
        page.initializeMemory(as: UInt8.self, repeating: 0)
      }
      done += count
    }
  }

  func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) {
    throw LenientDisk.refusal(path)
  }
  func write(
    at offset: Int, vectors: UnsafeMutableBufferPointer<iovec>
  ) throws(SystemError) { throw LenientDisk.refusal(path) }
  func sync() throws(SystemError) { throw LenientDisk.refusal(path) }
  func allocate(size: Int) throws(SystemError) { throw LenientDisk.refusal(path) }
  func punch(at offset: Int, count: Int) throws(SystemError) { throw LenientDisk.refusal(path) }
}
