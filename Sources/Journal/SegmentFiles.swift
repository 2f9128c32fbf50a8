import Base
import Glibc
import IO
import Synchronization

/// The files of a log: which there are, which spare ones wait to be used, and reading at positions.
/// Used by the core, the commit thread and the background thread.
package final class SegmentFiles: Sendable {
  package let disk: any Disk
  package let directory: String
  package let segmentBytes: Int
  package let identity: UInt64
  private let state: Mutex<State>

  private struct State {
    var spares: [String] = []
    var nextSpare = 0
    /// Names of spare files that could not be made, so that no other is taken for the next try.
    var unusedNames: [String] = []
  }

  package init(
    disk: any Disk, directory: String, segmentBytes: Int, identity: UInt64, spares: [String]
  ) {
    self.disk = disk
    self.directory = directory
    self.segmentBytes = segmentBytes
    self.identity = identity
    let numbers = spares.compactMap { Int($0.dropFirst("spare-".count).dropLast(8)) }
    state = Mutex(State(spares: spares, nextSpare: (numbers.max() ?? 0) + 1))
  }

  var spareCount: Int { state.withLock { $0.spares.count } }

  package static func name(_ firstPosition: Int) -> String {
    let digits = String(firstPosition, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits + ".segment"
  }

  /// Of a segment, with its header.
  var fileBytes: Int { SegmentHeader.pageBytes + segmentBytes }

  package func path(_ name: String) -> String { directory + "/" + name }

  // MARK: Making segments

  /// Of the spare files that were found those that can be used. The others go: they could not be made
  /// whole, or are more than are kept.
  static func usable(
    _ names: [String], _ disk: any Disk, _ directory: String, bytes: Int, sparesMax: Int
  ) throws(SystemError) -> [String] {
    var usable: [String] = []
    for name in names {
      let path = directory + "/" + name
      if usable.count < sparesMax, try disk.open(path, .read).size == bytes {
        usable.append(name)
      } else {
        try disk.remove(path)
      }
    }
    return usable
  }

  /// Makes a spare file with zeroed blocks; on the background thread.
  func prepareSpare() throws(SystemError) {
    let name = newSpareName()
    do throws(SystemError) {
      let file = try disk.open(path(name), .readWrite, creates: true)
      try file.allocate(size: fileBytes)
      try Self.zero(file, bytes: fileBytes)
      try file.sync()
    } catch {
      discard(name)
      throw noSegment(error)
    }
    state.withLock { $0.spares.append(name) }
  }

  /// What there is of a spare file that could not be made goes; it takes space that may be the last.
  /// If it stays, the next try is made with it.
  private func discard(_ name: String) {
    try? disk.remove(path(name))
    state.withLock { $0.unusedNames.append(name) }
  }

  /// The same words each time, whatever the name of the file was that could not be made.
  private func noSegment(_ error: SystemError) -> SystemError {
    SystemError("make a segment of \(segmentBytes) bytes in \(directory)", code: error.code)
  }

  /// Turns segments that are no longer needed into spares, or removes them when there are enough.
  /// They are written to only when their new names are durable: a crash must not find a segment of
  /// the old name with the content of another.
  func retire(_ names: [String], sparesMax: Int) throws(SystemError) {
    guard !names.isEmpty else { return }
    var spares: [String] = []
    for name in names {
      if spareCount + spares.count < sparesMax {
        let spare = newSpareName()
        try disk.rename(path(name), path(spare))
        spares.append(spare)
      } else {
        try disk.remove(path(name))
      }
    }
    try disk.syncDirectory(directory)
    state.withLock { $0.spares += spares }
  }

  /// Makes what was written to the segments of these positions durable.
  func sync(from start: Int, to end: Int) throws(SystemError) {
    var first = start - start % segmentBytes
    while first < end || first == start {
      let path = path(Self.name(first))
      if disk.exists(path) { try disk.open(path, .readWrite).sync() }
      first += segmentBytes
    }
  }

  /// Makes the segment that begins at `header.firstPosition` from a spare file and opens it. Its
  /// name is durable on return.
  package func create(_ header: SegmentHeader, isSynced: Bool) throws(SystemError) -> WriteTarget {
    let spare = state.withLock { $0.spares.popLast() }
    let name = spare ?? newSpareName()
    do throws(SystemError) {
      let file = try disk.open(path(name), .readWrite, creates: true)
      try file.allocate(size: fileBytes)
      try write(header, to: file)
      try disk.rename(path(name), path(Self.name(header.firstPosition)))
    } catch {
      if spare != nil {
        // It holds nothing, whatever was done with it.
        state.withLock { $0.spares.append(name) }
      } else {
        discard(name)
      }
      throw noSegment(error)
    }
    if !Sabotage.is(.forgetsDirectorySync) { try disk.syncDirectory(directory) }
    return try open(header.firstPosition, isSynced: isSynced)
  }

  /// Says in a segment, durably, whether there is another behind it. One that is gone, because a
  /// checkpoint has let go of it meanwhile, or that cannot be understood, is left as it is.
  /// Its header is read unless it is the one that is `known`.
  func mark(
    _ firstPosition: Int, hasSuccessor: Bool, known: SegmentHeader? = nil
  ) throws(SystemError) {
    let path = path(Self.name(firstPosition))
    let file: any DiskFile
    do throws(SystemError) {
      file = try disk.open(path, .readWrite)
    } catch {
      guard error.code == ENOENT else { throw error }
      return
    }
    let page = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentHeader.pageBytes, alignment: SegmentHeader.pageBytes)
    defer { page.deallocate() }
    if var header = known, header.firstPosition == firstPosition {
      header.hasSuccessor = hasSuccessor
      header.write(to: page)
      try file.write(at: 0, UnsafeRawBufferPointer(page))
      return try file.sync()
    }
    let count = try file.read(at: 0, into: page)
    do throws(SegmentHeader.Problem) {
      var header = try SegmentHeader(UnsafeRawBufferPointer(rebasing: page[..<count]))
      guard header.firstPosition == firstPosition else { return }
      header.hasSuccessor = hasSuccessor
      header.write(to: page)
    } catch {
      return
    }
    try file.write(at: 0, UnsafeRawBufferPointer(page))
    try file.sync()
  }

  private func write(_ header: SegmentHeader, to file: any DiskFile) throws(SystemError) {
    let page = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentHeader.pageBytes, alignment: SegmentHeader.pageBytes)
    defer { page.deallocate() }
    header.write(to: page)
    try file.write(at: 0, UnsafeRawBufferPointer(page))
    try file.sync()
  }

  /// Opens an existing segment for writing; past the page cache where the file system lets us.
  func open(_ firstPosition: Int, isSynced: Bool) throws(SystemError) -> WriteTarget {
    let path = path(Self.name(firstPosition))
    if isSynced {
      do throws(SystemError) {
        return WriteTarget(file: try disk.open(path, .writeThrough), needsSync: false)
      } catch {
        guard error.code == EINVAL || error.code == EOPNOTSUPP else { throw error }
      }
    }
    return WriteTarget(file: try disk.open(path, .readWrite), needsSync: isSynced)
  }

  private func newSpareName() -> String {
    state.withLock { state in
      if let name = state.unusedNames.popLast() { return name }
      state.nextSpare += 1
      return "spare-\(state.nextSpare).segment"
    }
  }

  private static func zero(_ file: any DiskFile, bytes: Int) throws(SystemError) {
    let chunk = 1 << 20
    let zeros = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk, alignment: 4096)
    defer { zeros.deallocate() }
    zeros.initializeMemory(as: UInt8.self, repeating: 0)
    var offset = 0
    while offset < bytes {
      let count = min(chunk, bytes - offset)
      try file.write(at: offset, UnsafeRawBufferPointer(rebasing: zeros[..<count]))
      offset += count
    }
  }

  // MARK: Reading

  /// Reads bytes of the log, over as many segments as they reach.
  package func read(position: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) {
    var done = 0
    while done < buffer.count {
      let place = position + done
      let first = place - place % segmentBytes
      let count = min(buffer.count - done, first + segmentBytes - place)
      let file = try disk.open(path(Self.name(first)), .read)
      let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count])
      let got = try file.read(at: SegmentHeader.pageBytes + place - first, into: piece)
      guard got == count else {
        throw SystemError("read \(file.path): it ends at byte \(got)", code: EIO)
      }
      done += count
    }
  }
}

/// A segment that is open for writing.
package final class WriteTarget {
  private let file: any DiskFile
  /// Whether a write is durable only after a sync.
  private let needsSync: Bool

  init(file: any DiskFile, needsSync: Bool) {
    self.file = file
    self.needsSync = needsSync
  }

  /// Writes all vectors and makes them as durable as the settings promise.
  func write(
    at offset: Int, vectors: UnsafeMutableBufferPointer<iovec>
  ) throws(SystemError) {
    try file.write(at: offset, vectors: vectors)
    if needsSync { try file.sync() }
  }

  /// Makes durable what was written, whatever the settings promise.
  func sync() throws(SystemError) {
    try file.sync()
  }
}
