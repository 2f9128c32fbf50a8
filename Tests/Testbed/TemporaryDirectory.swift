import Glibc
import IO

/// A directory that is removed, with what is in it, together with this object.
package final class TemporaryDirectory {
  package let path: String
  /// Where it is now.
  private var place: String

  package init() throws(SystemError) {
    let parent = Environment.variables()["TMPDIR"] ?? "/tmp"
    var template = Array("\(parent)/martlet-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemError("mkdtemp in \(parent)") }
    path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    place = path
  }

  deinit {
    Self.remove(place)
  }

  private static func remove(_ directory: String) {
    for name in (try? FileSystem.list(directory)) ?? [] {
      let path = directory + "/" + name
      if unlink(path) != 0 { remove(path) }
    }
    rmdir(directory)
  }

  /// Nothing is found at `path` from now on.
  package func vanish() throws(SystemError) {
    try FileSystem.rename(path, path + "-gone")
    place = path + "-gone"
  }

  /// What a crash would leave of the log: its segments and checkpoints as they are now. Nothing may
  /// be writing them.
  package func copy() throws -> TemporaryDirectory {
    let copy = try TemporaryDirectory()
    for name in try FileSystem.list(path) where !name.hasPrefix("spare-") {
      let file = try File(copy.path + "/" + name, .readWrite, creates: true)
      try file.write(at: 0, FileSystem.readWhole(path + "/" + name))
    }
    return copy
  }
}
