import Base
import Glibc
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

extension Journal.Settings {
  /// Small segments; everything durable moves that is a little old. Used with a `FaultyDisk`, which
  /// does not really sync.
  static var moving: Journal.Settings {
    var settings = Journal.Settings.quick
    settings.isSynced = true
    settings.segmentBytes = 256 << 10
    settings.windowBytes = 16 << 10
    settings.cacheBytes = 1 << 20
    settings.sparseFilesMin = .max
    return settings
  }
}

extension TestBroker {
  /// A broker with small segments that moves what is a little old.
  static func moving(
    _ disk: any Disk = FaultyDisk(), settings: Journal.Settings = .moving
  ) throws -> TestBroker {
    try TestBroker(settings: settings, disk: disk)
  }

  /// Writes so much to the log that all before it is old; nobody keeps it.
  func age(_ channel: Channel) throws {
    if queue("junk") == nil { try channel.declare("junk", isDurable: true) }
    for _ in 0..<3 {
      try turn {
        try channel.publish(
          [UInt8](repeating: 0, count: 200_000), key: "junk", isPersistent: true)
        try channel.purge("junk")
      }
      turns { !journal.isCommitting && !journal.hasUncommitted }
    }
  }

  /// Everything that was published moves into lane files.
  func moveOut(_ channel: Channel) throws {
    try age(channel)
    spillTurns()
  }

  /// Whether no message of the log or in memory is older than what was just written.
  var hasMoved: Bool {
    guard let oldest = journal.oldestLogBlock() else { return true }
    return oldest > journal.durablePosition - (1 << 20)
  }

  /// Lets the log's threads do what they have, and takes it, some times.
  func work(_ times: Int = 6) {
    for _ in 0..<times {
      drainWorkers()
      turn()
    }
  }

  func files(_ suffix: String) throws -> [String] {
    try FileSystem.list(directory.path).filter { $0.hasSuffix(suffix) }
  }

  /// Bytes that files with such names take on the disk.
  func allocatedBytes(_ suffix: String) throws -> Int {
    try files(suffix).reduce(0) { sum, name in
      var status = stat()
      guard stat(directory.path + "/" + name, &status) == 0 else { return sum }
      return sum + 512 * Int(status.st_blocks)
    }
  }

  /// What is wrong, once.
  func takeProblem() -> String? {
    let problems = journal.takeProblems()
    return problems.isEmpty ? nil : problems.joined(separator: "; ")
  }
}

/// Holds the thread that comes to an operation, until it is opened; then the operation may go on, or
/// fails with `code`.
final class Gate: Sendable {
  private let reached: JournalWake
  private let opened: JournalWake
  private let isUsed = FaultyDisk.Counter()

  init(
    _ disk: FaultyDisk, _ operation: FaultyDisk.Operation, _ part: String, code: Int32? = nil
  ) throws {
    reached = try JournalWake()
    opened = try JournalWake()
    disk.set { [self] kind, path in
      guard kind == operation, FaultyDisk.contains(path, part), isUsed.next() == 1 else {
        return nil
      }
      reached.signal()
      opened.wait()
      return code
    }
  }

  func waitUntilReached() { reached.wait() }

  func open() { opened.signal() }
}

/// Flips bits of a file.
func damage(_ path: String, at offset: Int) throws {
  let byte = try FileSystem.readWhole(path)[offset]
  try File(path, .readWrite).write(at: offset, [byte ^ 0x5A])
}
