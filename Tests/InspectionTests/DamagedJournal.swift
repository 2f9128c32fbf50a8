import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// A data directory that can be damaged, verified and repaired, and what its queues held.
final class DamagedJournal {
  let data: TemporaryDirectory
  /// What each queue held before the damage, in order.
  let contents: [Name: [String]]
  var journal: String { data.path + "/journal" }
  var repaired: String { data.path + "/repair" }

  static let queues: [Name] = ["first", "second"]

  /// Two queues and an exchange that feeds both; most messages have moved into lane files, some were
  /// consumed, some stand in the log alone.
  init(spilling: Bool = true) throws {
    data = try TemporaryDirectory()
    let broker = try TestBroker(settings: spilling ? .damaged : .damagedLog)
    let channel = broker.connect().open()
    try broker.durableTurn {
      try broker.vhost.declare(exchange: "both", "fanout", isDurable: true)
      for queue in Self.queues {
        try channel.declare(queue, isDurable: true)
        try channel.bind(queue, to: "both")
      }
    }
    for round in 0..<60 {
      try broker.durableTurn {
        for number in round * 30..<round * 30 + 30 {
          let body = Self.body(number)
          try channel.publish(body, to: "both", key: "key", isPersistent: true)
        }
      }
      if round % 10 == 9 {
        try broker.durableTurn { for _ in 0..<3 { _ = try channel.take("first") } }
      }
      if spilling { broker.quietTurn() }
    }
    broker.close()
    contents = try Self.contents(TestBroker(in: broker.directory.copy()))
    try FileSystem.makeDirectories(data.path + "/journal")
    for name in try FileSystem.list(broker.directory.path) where !name.hasPrefix("spare-") {
      try File(data.path + "/journal/" + name, .readWrite, creates: true)
        .write(at: 0, FileSystem.readWhole(broker.directory.path + "/" + name))
    }
  }

  private init(_ other: DamagedJournal) throws {
    data = try TemporaryDirectory()
    contents = other.contents
    try FileSystem.makeDirectories(journal)
    for (name, bytes) in try other.snapshot() {
      try File(path(name), .readWrite, creates: true).write(at: 0, bytes)
    }
  }

  func copy() throws -> DamagedJournal { try DamagedJournal(self) }

  private static func body(_ number: Int) -> String {
    "\(number):" + String(repeating: "x", count: 1200 + number % 7 * 300)
  }

  // MARK: Files

  func names(_ suffix: String) throws -> [String] {
    try FileSystem.list(journal).filter { $0.hasSuffix(suffix) }
  }

  func path(_ name: String) -> String { journal + "/" + name }

  /// Changes the byte at `offset`.
  func flip(_ name: String, _ offset: Int) throws {
    let file = try File(path(name), .readWrite)
    var byte: UInt8 = 0
    _ = try withUnsafeMutableBytes(of: &byte) { bytes throws(SystemError) in
      try file.read(at: offset, into: bytes)
    }
    try file.write(at: offset, [byte ^ 0x55])
  }

  func cut(_ name: String, to count: Int) throws {
    let bytes = try FileSystem.readWhole(path(name)).prefix(count)
    try FileSystem.remove(path(name))
    try File(path(name), .readWrite, creates: true).write(at: 0, Array(bytes))
  }

  func remove(_ name: String) throws { try FileSystem.remove(path(name)) }

  /// The bytes of every file.
  func snapshot() throws -> [String: [UInt8]] {
    var files: [String: [UInt8]] = [:]
    for name in try FileSystem.list(journal) { files[name] = try FileSystem.readWhole(path(name)) }
    return files
  }

  // MARK: Tools

  func verify() throws -> JournalVerification { try JournalVerification(directory: journal) }

  func repair() throws -> JournalRepair {
    let repair = JournalRepair(try verify()) { Array("\($0.sequence)\n".utf8) }
    try repair.perform(in: repaired, now: 1_700_000_000_000)
    return repair
  }

  /// Why the broker does not start; nil if it does.
  func refusal() throws -> String? {
    let copy = try copied()
    do {
      _ = try TestBroker(in: copy)
      return nil
    } catch let error as JournalError {
      return "\(error)"
    }
  }

  /// What a broker finds in the queues.
  func found() throws -> [Name: [String]] { try Self.contents(TestBroker(in: copied())) }

  /// What a broker can use while the rest of the test goes on.
  func copied() throws -> TemporaryDirectory {
    let copy = try TemporaryDirectory()
    for name in try FileSystem.list(journal) {
      try File(copy.path + "/" + name, .readWrite, creates: true)
        .write(at: 0, FileSystem.readWhole(path(name)))
    }
    return copy
  }

  private static func contents(_ broker: TestBroker) throws -> [Name: [String]] {
    let channel = broker.connect().open()
    var contents: [Name: [String]] = [:]
    for name in broker.vhost.destinations.keys {
      contents[name] = try channel.drain(name).map { String($0.text.prefix { $0 != ":" }) }
    }
    return contents
  }
}

extension Journal.Settings {
  /// What was confirmed is proven to be, and what waits moves soon.
  static var damaged: Journal.Settings {
    var settings = damagedLog
    settings.windowBytes = 128 << 10
    return settings
  }

  static var damagedLog: Journal.Settings {
    var settings = Journal.Settings.quick
    settings.isSynced = true
    return settings
  }
}
