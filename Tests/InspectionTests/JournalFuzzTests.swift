import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// Files of any length and any content: the tools come to an end with a verdict, and the broker agrees
/// with it. What `verify` calls sound is started with and there as it was counted; what is refused was
/// said.
@Suite struct JournalFuzzTests {
  /// A small journal with everything in it: a checkpoint, lane files, segments.
  private final class Small {
    let data: TemporaryDirectory
    private(set) var files: [String: [UInt8]] = [:]

    static var settings: Journal.Settings {
      var settings = Journal.Settings.damaged
      settings.segmentBytes = 16 << 10
      settings.windowBytes = 16 << 10
      return settings
    }

    init() throws {
      data = try TemporaryDirectory()
      let broker = try TestBroker(settings: Self.settings, disk: FaultyDisk())
      let channel = broker.connect().open()
      try channel.declare("q", isDurable: true)
      try channel.declare("other", isDurable: true)
      try channel.bind("q", to: "amq.topic", key: "a.#")
      for round in 0..<20 {
        // What goes with its last binding goes as a group; the last ones stand in the log.
        if round % 4 == 3 { try Self.cascade(broker, channel) }
        try broker.durableTurn {
          for number in 0..<4 {
            let body = "\(round * 4 + number):" + String(repeating: "x", count: 500)
            try channel.publish(body, key: number == 0 ? "other" : "q", isPersistent: true)
          }
          if round % 5 == 4 { _ = try channel.take("q") }
        }
        broker.quietTurn()
        broker.drainWorkers()
      }
      let crashed = try broker.directory.copy()
      for name in try FileSystem.list(crashed.path) {
        files[name] = try FileSystem.readWhole(crashed.path + "/" + name)
      }
    }

    private static func cascade(_ broker: TestBroker, _ channel: Channel) throws {
      try broker.durableTurn {
        try channel.declare("going", isDurable: true)
        for name in ["x", "y"] as [Name] {
          try broker.vhost.declare(exchange: name, isDurable: true, isAutoDelete: true)
          try channel.bind("going", to: name)
        }
      }
      try broker.durableTurn { try channel.delete("going") }
    }

    func name(_ suffix: String) -> String {
      files.keys.sorted().last { $0.hasSuffix(suffix) } ?? ""
    }
  }

  /// What tools and broker say of a directory with these files.
  private func expectAgreement(
    _ files: [String: [UInt8]], _ comment: Comment,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let directory = try TemporaryDirectory()
    for (name, bytes) in files {
      try File(directory.path + "/" + name, .readWrite, creates: true).write(at: 0, bytes)
    }
    let verification: JournalVerification
    do {
      verification = try JournalVerification(directory: directory.path)
    } catch JournalError.older, JournalError.newer {
      #expect(throws: JournalError.self, sourceLocation: sourceLocation) {
        try TestBroker(in: directory, settings: Small.settings, disk: FaultyDisk())
      }
      return
    }
    _ = JournalRepair(verification).report
    do {
      let broker = try TestBroker(in: directory, settings: Small.settings, disk: FaultyDisk())
      guard verification.isSound else { return }
      for queue in verification.queues {
        let found = broker.queue(queue.name)?.messageCount
        #expect(found == queue.count, comment, sourceLocation: sourceLocation)
      }
    } catch let error as JournalError {
      #expect(
        !verification.isSound, "\(comment): verify says sound, serve \(error)",
        sourceLocation: sourceLocation)
    }
  }

  @Test func filesOfAnyLength() throws {
    let small = try Small()
    try expectAgreement(small.files, "as it was")
    for suffix in [".segment", ".checkpoint", ".lanes"] {
      let name = small.name(suffix)
      let whole = try #require(small.files[name])
      let lengths =
        [0, 1, 8, 15, 16, 39, 40, 47, 48, 63, 64, 65, 80]
        + stride(from: 81, to: whole.count, by: whole.count / 25)
      for length in lengths {
        var files = small.files
        files[name] = Array(whole[..<length])
        try expectAgreement(files, "\(name) of \(length) bytes")
      }
    }
  }

  /// The log's only segment, of any length, with and without anything beside it.
  @Test func aLoneSegmentOfAnyLength() throws {
    let small = try Small()
    let whole = try #require(small.files[small.name(".segment")])
    for length in Array(0...70) + [100, 4095, 4096, 4097, 8192, 12000] {
      let name = length % 2 == 0 ? SegmentFiles.name(0) : small.name(".segment")
      try expectAgreement([name: Array(whole[..<length])], "\(name) of \(length) bytes")
    }
  }

  @Test(arguments: Seeds.all)
  func bytesOfAnyValue(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let small = try Small()
    let names = small.files.keys.sorted()
    for round in 0..<20 {
      var files = small.files
      for _ in 0...random.number(0..<3) {
        guard let name = random.element(names), var bytes = files[name], !bytes.isEmpty else {
          continue
        }
        Self.change(&bytes, &random)
        files[name] = bytes
      }
      try expectAgreement(files, "seed \(seed), round \(round)")
    }
  }

  private static func change(_ bytes: inout [UInt8], _ random: inout SeededRandom) {
    let start =
      random.isOne(in: 3)
      ? random.number(0..<min(80, bytes.count))
      : random.number(
        0..<bytes.count)
    let end = min(bytes.count, start + random.number(1..<400))
    switch random.number(0..<5) {
    case 0: bytes[start] ^= UInt8(1 << random.number(0..<8))
    case 1: for place in start..<end { bytes[place] = UInt8.random(in: 0...255, using: &random) }
    case 2: for place in start..<end { bytes[place] = 0xFF }
    case 3: for place in start..<end { bytes[place] = 0 }
    default: bytes.removeSubrange(start..<end)
    }
  }

  /// Numbers of which the checksum is right, and nothing else.
  @Test func headersThatMakeNoSense() throws {
    let small = try Small()
    let name = small.name(".segment")
    for field in [16, 24, 32, 40, 48, 56] {
      for value in [0, 1, 4095, 1 << 20, 1 << 40, 1 << 61, 1 << 62, .max / 2, .max] as [UInt64] {
        var bytes = try #require(small.files[name])
        bytes.withUnsafeMutableBytes { bytes in
          bytes.storeBytes(of: value, toByteOffset: field, as: UInt64.self)
          let sum = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[16..<64]))
          bytes.storeBytes(of: sum, toByteOffset: 12, as: UInt32.self)
        }
        var files = small.files
        files[name] = bytes
        try expectAgreement(files, "\(value) at \(field)")
        try expectAgreement([SegmentFiles.name(0): bytes], "\(value) at \(field), alone")
      }
    }
    let checkpoint = small.name(".checkpoint")
    for field in [16, 24, 32, 48, 56, 64] {
      for value in [0, 8, 1 << 20, 1 << 62, 1 << 63, .max] as [UInt64] {
        var bytes = try #require(small.files[checkpoint])
        bytes.withUnsafeMutableBytes { bytes in
          bytes.storeBytes(of: value, toByteOffset: field, as: UInt64.self)
          let sum = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[16...]))
          bytes.storeBytes(of: sum, toByteOffset: 12, as: UInt32.self)
        }
        let directory = try TemporaryDirectory()
        var files = small.files
        files[checkpoint] = bytes
        for (name, bytes) in files {
          try File(directory.path + "/" + name, .readWrite, creates: true).write(at: 0, bytes)
        }
        // What a right checksum vouches for is believed by the broker, or refused; it is no trap.
        _ = try? JournalRepair(JournalVerification(directory: directory.path)).report
      }
    }
  }

  /// Files that nobody wrote there.
  @Test func namesOfAnyKind() throws {
    let small = try Small()
    let segment = try #require(small.files[small.name(".segment")])
    let lanes = try #require(small.files[small.name(".lanes")])
    for name in [
      "zzzz.segment", "FFFFFFFFFFFFFFFF.segment", "ffffffffffffffff.segment",
      "4000000000000000.segment", "3ffffffffffff000.segment", "0000000000ff0000.segment",
      "0000000000ff0001.segment", "spare-x.segment", "spare-99.segment", "x.lanes",
      "00000000ffffffff.lanes", "00000000fffffffe.lanes", "00000000fffffffe.scratch",
      "8000000000000000.checkpoint", "4000000000000000.checkpoint", "x.checkpoint.new",
    ] {
      for bytes in [[1, 2, 3], segment, lanes] {
        var files = small.files
        files[name] = bytes
        try expectAgreement(files, "\(name), \(bytes.count) bytes")
      }
    }
    // A repair ends well, wherever a stray checkpoint's name says that it is.
    for name in ["3fffffffffffffff.checkpoint", "0000100000000000.checkpoint"] {
      let data = try TemporaryDirectory()
      let journal = data.path + "/journal"
      try FileSystem.makeDirectories(journal)
      for (name, bytes) in small.files.merging([name: [1, 2, 3]], uniquingKeysWith: { $1 }) {
        try File(journal + "/" + name, .readWrite, creates: true).write(at: 0, bytes)
      }
      try JournalRepair(JournalVerification(directory: journal))
        .perform(in: data.path + "/repair", now: 1)
      #expect(try JournalVerification(directory: journal).problems == [], "\(name)")
    }
    // Under each other's names.
    let names = small.files.keys.sorted()
    for name in names {
      for other in names {
        var files = small.files
        files[name] = files[other]
        try expectAgreement(files, "\(other) as \(name)")
      }
      var files = small.files
      files[name] = nil
      try expectAgreement(files, "without \(name)")
    }
  }
}
