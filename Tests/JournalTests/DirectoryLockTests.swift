import IO
import Testbed
import Testing

/// One process at a time has a directory, whatever happens to the lock's file.
@Suite struct DirectoryLockTests {
  @Test func aFileThatIsRemovedLetsNobodyIn() throws {
    let directory = try TemporaryDirectory()
    let lock = try DirectoryLock(directory: directory.path)
    let isHeld = lock != nil
    #expect(isHeld)
    try FileSystem.remove(directory.path + "/lock")
    let second = try DirectoryLock(directory: directory.path)
    let isSecondHeld = second != nil
    #expect(!isSecondHeld)
    #expect(try DirectoryLock.holder(of: directory.path) == .process(nil))
    _ = consume lock
    #expect(try DirectoryLock.holder(of: directory.path) == .nobody)
  }

  /// Who works in a directory that was moved leaves alone what was put in its place.
  @Test func aDirectoryThatWasReplacedIsNotWrittenTo() throws {
    let parent = try TemporaryDirectory()
    let path = parent.path + "/data"
    try FileSystem.makeDirectories(path)
    let disk = PlacedDisk(SystemDisk(), places: [try PlaceOnDisk(path)])
    _ = try disk.open(path + "/file", .readWrite, creates: true)
    try FileSystem.rename(path, parent.path + "/away")
    try FileSystem.makeDirectories(path)
    _ = try File(path + "/file", .readWrite, creates: true)
    let error = #expect(throws: SystemError.self) { try disk.open(path + "/file", .readWrite) }
    #expect(error.map { "\($0)".contains("\(path) was moved, removed or replaced") } == true)
    #expect(throws: SystemError.self) {
      _ = try disk.open(path + "/new", .readWrite, creates: true)
    }
    #expect(throws: SystemError.self) { try disk.remove(path + "/file") }
    #expect(throws: SystemError.self) { try disk.rename(path + "/file", path + "/other") }
    #expect(throws: SystemError.self) { try disk.makeDirectories(path + "/streams") }
    #expect(try FileSystem.list(path) == ["file"])
    try FileSystem.rename(path, parent.path + "/other")
    try FileSystem.rename(parent.path + "/away", path)
    try disk.remove(path + "/file")
    #expect(try FileSystem.list(path) == [])
  }

  @Test func aNoteStaysForTheNext() throws {
    let directory = try TemporaryDirectory()
    for note in [nil, "journal 1f", "journal 1f"] {
      guard let lock = try DirectoryLock(directory: directory.path) else {
        Issue.record("somebody has the lock")
        return
      }
      let found = lock.note
      #expect(found == note)
      if note == nil { try lock.keep(note: "journal 1f") }
    }
  }

  @Test func aNameThatLeadsElsewhereIsNoticed() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/journal"
    try FileSystem.makeDirectories(path)
    let place = try PlaceOnDisk(path)
    #expect(place.isThere)
    try FileSystem.rename(path, path + "-old")
    #expect(!place.isThere)
    try FileSystem.makeDirectories(path)
    #expect(!place.isThere)
  }
}
