import Arbitrary
import Base
import Glibc
import IO

/// A disk in memory that does what a disk may do: it loses what was not made durable, tears writes,
/// fails, and fills up. One thread uses it at a time, whoever has the scheduler's baton, which is why
/// it may be handed to several.
final class VirtualDisk: Disk, @unchecked Sendable {
  /// Names as the running system sees them, by their whole path.
  private(set) var names: [String: Inode] = [:]
  private var durableNames: [String: Inode] = [:]
  /// Changes of names since the directory was last synced, oldest first.
  private var pendingNames: [NameChange] = []
  private var random: SeededGenerator
  private let coverage: CoverageCounter
  private let trace: Trace
  let sectorBytes: Int
  /// Bytes that files may take.
  var capacity = Int.max
  var episode: FaultEpisode?
  /// What a sync that failed should have made durable may never be.
  var forgetsAtFailure = true
  /// A bit that has flipped.
  var rot: Rot?
  /// Something failed that was made to fail, since the life began.
  var hasFailed = false
  /// Operations that have failed.
  private(set) var failureCount = 0
  /// The crash comes after so many more operations.
  private var countdown: Int?
  private var counted: DiskOperation?
  private(set) var crashKind = CrashKind.powerLoss
  /// Nothing works until `restart`.
  private(set) var isCrashed = false
  /// Whoever works on the disk away from the core; lets others go first before each operation.
  var running: SimulatedWorker?

  private struct NameChange {
    var removed: String?
    var added: (name: String, inode: Inode)?
  }

  init(seed: UInt64, sectorBytes: Int, coverage: CoverageCounter, trace: Trace) {
    self.trace = trace
    random = SeededGenerator(seed: seed)
    self.sectorBytes = sectorBytes
    self.coverage = coverage
  }

  // MARK: Crashing

  /// The crash comes in the operation that follows `operations` more; those of one kind are counted
  /// alone, if one is given.
  func crash(after operations: Int, _ kind: CrashKind, in counted: DiskOperation? = nil) {
    countdown = operations
    self.counted = counted
    crashKind = kind
  }

  func cancelCrash() { countdown = nil }

  func crashNow(_ kind: CrashKind) {
    crashKind = kind
    isCrashed = true
    countdown = nil
  }

  /// The disk as it is after the crash; whoever used it before must be gone.
  func restart() {
    if crashKind == .powerLoss { losePower() }
    isCrashed = false
    countdown = nil
    hasFailed = false
    running = nil
  }

  private func losePower() {
    let chance = random.choose([0, 0, 20, 50, 80, 100])
    let survives = { [self] in random.number(1...100) <= chance }
    for change in pendingNames {
      guard survives() else {
        coverage.note(.lostNames)
        trace.note("      lost: \(change.removed ?? "") \(change.added?.name ?? "")")
        continue
      }
      if let removed = change.removed { durableNames[removed] = nil }
      if let added = change.added { durableNames[added.name] = added.inode }
    }
    pendingNames = []
    names = durableNames
    var seen: Set<ObjectIdentifier> = []
    for name in names.keys.sorted() {
      guard let inode = names[name], seen.insert(ObjectIdentifier(inode)).inserted else { continue }
      coverage.note(.lostSectors, inode.losePower(survives: survives))
    }
  }

  // MARK: Operations

  /// Every operation begins here: others may go first, the crash may come, it may be made to fail.
  /// `atCrash` leaves behind what of the operation was done when the crash fell into it.
  fileprivate func enter(
    _ operation: DiskOperation, _ path: String, atCrash: () -> Void = {},
    atFailure: () -> Void = {}
  ) throws(SystemError) {
    running?.pause()
    guard !isCrashed else { throw SystemError("\(operation) \(path): crashed", code: EIO) }
    if let left = countdown, counted == nil || counted == operation {
      countdown = left - 1
      if left == 0 {
        coverage.note(.crashesInOperation)
        atCrash()
        trace.note("      the crash falls into \(operation) \(path)")
        crashNow(crashKind)
        throw SystemError("\(operation) \(path): crashed", code: EIO)
      }
    }
    guard let episode, episode.operations.contains(operation), random.oneIn(episode.oneIn) else {
      trace.note("      \(running?.name ?? "core"): \(operation) \(path)")
      return
    }
    hasFailed = true
    failureCount += 1
    trace.note("      \(running?.name ?? "core"): \(operation) \(path) fails")
    note(operation)
    atFailure()
    throw SystemError("\(operation) \(path)", code: operation == .allocate ? ENOSPC : EIO)
  }

  private func note(_ operation: DiskOperation) {
    switch operation {
    case .read: coverage.note(.readFailures)
    case .write: coverage.note(.writeFailures)
    case .sync, .syncDirectory: coverage.note(.syncFailures)
    default: coverage.note(.otherFailures)
    }
  }

  var usedBytes: Int {
    var seen: Set<ObjectIdentifier> = []
    return names.values.reduce(0) {
      seen.insert(ObjectIdentifier($1)).inserted ? $0 + $1.allocatedBytes : $0
    }
  }

  fileprivate var room: Int { capacity == .max ? .max : max(0, capacity - usedBytes) }

  fileprivate func takeSpace(_ bytes: Int, _ path: String) throws(SystemError) {
    guard bytes > 0, capacity != .max, usedBytes + bytes > capacity else { return }
    coverage.note(.refusedForSpace)
    hasFailed = true
    throw SystemError("write \(path)", code: ENOSPC)
  }

  func note(_ text: @autoclosure () -> String) { trace.note("      \(text())") }
  func coin() -> Bool { random.flag() }
  func number(_ range: ClosedRange<Int>) -> Int { random.number(range) }
  fileprivate func noteWrite(_ offset: Int, _ bytes: UnsafeRawBufferPointer) {
    trace.note(
      "        \(bytes.count) bytes at \(offset) sum \(bytes.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xffffff})"
    )
  }
  fileprivate func noteTorn() { coverage.note(.tornWrites) }

  func open(
    _ path: String, _ access: File.Access, creates: Bool
  ) throws(SystemError) -> any DiskFile {
    try enter(.open, path)
    if let inode = names[path] {
      return VirtualFile(disk: self, path: path, inode: inode, access: access)
    }
    guard creates else { throw SystemError("open \(path)", code: ENOENT) }
    let inode = Inode(sectorBytes: sectorBytes)
    names[path] = inode
    pendingNames.append(NameChange(removed: nil, added: (path, inode)))
    return VirtualFile(disk: self, path: path, inode: inode, access: access)
  }

  func makeDirectories(_ path: String) throws(SystemError) {
    try enter(.list, path)
  }

  func list(_ path: String) throws(SystemError) -> [String] {
    try enter(.list, path)
    return names.keys.filter { $0.hasPrefix(path + "/") }
      .map { String($0.dropFirst(path.count + 1)) }.sorted()
  }

  func exists(_ path: String) -> Bool { names[path] != nil }

  func rename(_ from: String, _ to: String) throws(SystemError) {
    try enter(.rename, from)
    guard let inode = names.removeValue(forKey: from) else {
      throw SystemError("rename \(from)", code: ENOENT)
    }
    names[to] = inode
    pendingNames.append(NameChange(removed: from, added: (to, inode)))
  }

  func remove(_ path: String) throws(SystemError) {
    try enter(.remove, path)
    guard names.removeValue(forKey: path) != nil else { return }
    pendingNames.append(NameChange(removed: path, added: nil))
  }

  func syncDirectory(_ path: String) throws(SystemError) {
    try enter(.syncDirectory, path)
    durableNames = names
    pendingNames = []
  }

  func freeBytes(_ path: String) throws(SystemError) -> Int {
    capacity == .max ? .max / 2 : max(0, capacity - usedBytes)
  }

  /// Files with their sizes, for the trace and for bounds.
  var listing: [(name: String, bytes: Int)] {
    names.sorted { $0.key < $1.key }.map { ($0.key, $0.value.allocatedBytes) }
  }
}

/// An open file of a `VirtualDisk`; what is said there of threads holds here.
final class VirtualFile: DiskFile, @unchecked Sendable {
  private let disk: VirtualDisk
  let path: String
  private let inode: Inode
  private let access: File.Access

  init(disk: VirtualDisk, path: String, inode: Inode, access: File.Access) {
    self.disk = disk
    self.path = path
    self.inode = inode
    self.access = access
  }

  var size: Int { get throws(SystemError) { inode.current.count } }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
    try disk.enter(.read, path)
    if let rot = disk.rot, rot.path == path, inode.isRotten(at: offset, count: buffer.count) {
      rot.isMet = true
    }
    return inode.read(at: offset, into: buffer)
  }

  func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) {
    invariant(access != .read, "\(path) was opened for reading")
    try disk.enter(
      .write, path, atCrash: { tear(at: offset, bytes) }, atFailure: { tear(at: offset, bytes) })
    disk.noteWrite(offset, bytes)
    let growth = inode.growth(offset: offset, count: bytes.count)
    if growth > disk.room {
      tear(
        at: offset,
        UnsafeRawBufferPointer(
          rebasing: bytes.prefix(
            disk.room / 4096 * 4096)))
    }
    try disk.takeSpace(growth, path)
    if access == .writeThrough {
      invariant(
        offset % 4096 == 0 && bytes.count % 4096 == 0, "a direct write of \(path) is not aligned")
      inode.writeThrough(at: offset, bytes)
    } else {
      inode.write(at: offset, bytes)
    }
  }

  /// A write that was not finished: any of its sectors may have been written, often the first ones.
  private func tear(at offset: Int, _ bytes: UnsafeRawBufferPointer) {
    disk.noteTorn()
    guard disk.coin() else {
      let count = disk.number(0...bytes.count / disk.sectorBytes) * disk.sectorBytes
      let part = UnsafeRawBufferPointer(rebasing: bytes[..<count])
      return access == .writeThrough
        ? inode.writeThrough(at: offset, part) : inode.write(at: offset, part)
    }
    if access == .writeThrough {
      inode.writeThrough(at: offset, bytes) { disk.coin() }
    } else {
      inode.write(at: offset, bytes)
    }
  }

  func write(
    at offset: Int, vectors: UnsafeMutableBufferPointer<iovec>
  ) throws(SystemError) {
    let total = vectors.reduce(0) { $0 + $1.iov_len }
    let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: total, alignment: 4096)
    defer { whole.deallocate() }
    var done = 0
    for vector in vectors {
      if access == .writeThrough {
        invariant(
          vector.iov_len % 4096 == 0 && Int(bitPattern: vector.iov_base) % 4096 == 0,
          "a direct write of \(path) is not aligned in memory")
      }
      UnsafeMutableRawBufferPointer(rebasing: whole[done..<done + vector.iov_len])
        .copyMemory(from: UnsafeRawBufferPointer(start: vector.iov_base, count: vector.iov_len))
      done += vector.iov_len
    }
    try write(at: offset, UnsafeRawBufferPointer(whole))
  }

  func sync() throws(SystemError) {
    try disk.enter(
      .sync, path, atFailure: { inode.syncFailed { disk.forgetsAtFailure && disk.coin() } })
    inode.sync()
  }

  func allocate(size: Int) throws(SystemError) {
    // What there was room for stays taken.
    let missing = max(0, size - inode.current.count)
    try disk.enter(
      .allocate, path,
      atFailure: { inode.extend(to: inode.current.count + disk.number(0...missing)) })
    if missing > disk.room { inode.extend(to: inode.current.count + disk.room) }
    try disk.takeSpace(max(0, size - inode.current.count), path)
    inode.extend(to: size)
  }

  func punch(at offset: Int, count: Int) throws(SystemError) {
    try disk.enter(.punch, path)
    inode.punch(at: offset, count: count)
  }
}
