import Base
import Glibc
import IO

/// An empty directory that goes, with the files in it and in its directories, when nobody needs it
/// any more.
final class TemporaryDirectory: Sendable {
  let path: String

  init() {
    let parent = Environment.variables()["TMPDIR"] ?? "/tmp"
    var template = Array("\(parent)/martlet-loop-XXXXXX".utf8CString)
    let isMade = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!) != nil }
    invariant(isMade, "no temporary directory could be made in \(parent)")
    path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  deinit {
    Self.remove(path)
  }

  private static func remove(_ path: String) {
    for name in (try? FileSystem.list(path)) ?? [] {
      if unlink("\(path)/\(name)") != 0 { remove("\(path)/\(name)") }
    }
    rmdir(path)
  }
}
