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
    try Self.copyFiles(from: path, to: copy.path) { !$0.hasPrefix("spare-") }
    return copy
  }

  /// Copies files that are wanted, and all in directories, into a directory that is there.
  package static func copyFiles(
    from directory: String, to other: String, where isWanted: (String) -> Bool = { _ in true }
  ) throws {
    for name in try FileSystem.list(directory) where isWanted(name) {
      let (path, target) = (directory + "/" + name, other + "/" + name)
      if FileSystem.isDirectory(path) {
        try FileSystem.makeDirectories(target)
        try copyFiles(from: path, to: target)
      } else {
        try File(target, .readWrite, creates: true).write(at: 0, FileSystem.readWhole(path))
      }
    }
  }
}
