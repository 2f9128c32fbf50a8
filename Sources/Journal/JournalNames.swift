import Base
import Glibc
import IO

/// The names in a journal's directory and what they stand for; recovery and the tools read them alike.
/// Only what the journal itself would have written is taken: a copy that somebody made beside, or a
/// directory, is never taken for a file of the log, used as a spare one, or removed.
package struct JournalNames {
  package enum Kind: Equatable {
    /// By its first position.
    case segment(Int)
    case spare(Int)
    /// By its position.
    case checkpoint(Int)
    case lanes(UInt32)
    /// What a round that was not over has left, and files of transient messages.
    case unfinishedLanes(UInt32)
    case unfinishedCheckpoint(Int)
    /// The log failed in the last life.
    case failureMark
    /// Ends like a file of the journal, and is none.
    case foreign
    /// Has nothing to do with the journal.
    case stranger
  }

  package private(set) var segments: [(name: String, position: Int)] = []
  package private(set) var spares: [(name: String, number: Int)] = []
  package private(set) var checkpoints: [(name: String, position: Int)] = []
  package private(set) var lanes: [(name: String, number: UInt32)] = []
  package private(set) var unfinishedLanes: [(name: String, number: UInt32)] = []
  package private(set) var unfinishedCheckpoints: [String] = []
  /// Of segments of partitions, each of which has two.
  package private(set) var partitionFiles: [(name: String, file: SegmentFile)] = []
  package private(set) var hasFailureMark = false
  package private(set) var strangers: [String] = []
  /// With what is wrong.
  package private(set) var foreign: [(name: String, text: String)] = []

  /// In the order of the names.
  package init(_ disk: any Disk, _ directory: String) throws(SystemError) {
    for name in try disk.list(directory) {
      if name == PartitionFiles.directory {
        try readPartitions(disk, directory)
        continue
      }
      let kind = Self.kind(of: name)
      guard kind != .stranger, kind != .foreign else {
        add(name, kind)
        continue
      }
      switch disk.kind(directory + "/" + name) {
      case .file: add(name, kind)
      case .other: foreign.append((name, Self.isNoFile))
      case .missing: continue
      }
    }
  }

  private mutating func readPartitions(_ disk: any Disk, _ directory: String) throws(SystemError) {
    let names: [String]
    do throws(SystemError) {
      names = try disk.list(directory + "/" + PartitionFiles.directory)
    } catch {
      guard error.code == ENOTDIR || error.code == ENOENT || error.code == ELOOP else {
        throw error
      }
      foreign.append((PartitionFiles.directory, Self.isNoDirectory))
      return
    }
    for name in names {
      let path = PartitionFiles.directory + "/" + name
      guard PartitionFiles.isSuffix(of: name) else {
        strangers.append(path)
        continue
      }
      guard let (partition, base) = PartitionFiles.parse(name) else {
        foreign.append((path, Self.isNotOurs))
        continue
      }
      switch disk.kind(directory + "/" + path) {
      case .file: partitionFiles.append((path, SegmentFile(partition: partition, base: base)))
      case .other: foreign.append((path, Self.isNoFile))
      case .missing: continue
      }
    }
  }

  private mutating func add(_ name: String, _ kind: Kind) {
    switch kind {
    case .segment(let position): segments.append((name, position))
    case .spare(let number): spares.append((name, number))
    case .checkpoint(let position): checkpoints.append((name, position))
    case .lanes(let number): lanes.append((name, number))
    case .unfinishedLanes(let number): unfinishedLanes.append((name, number))
    case .unfinishedCheckpoint: unfinishedCheckpoints.append(name)
    case .failureMark: hasFailureMark = true
    case .foreign: foreign.append((name, Self.isNotOurs))
    case .stranger: strangers.append(name)
    }
  }

  package static let isNotOurs =
    "the journal has no file of this name; move it out of the directory"
  static let isNoFile =
    "this is a directory, or something else that is not a file; move it out of the directory"

  static let isNoDirectory =
    "this is to be a directory; move it out of the way"

  /// A journal among whose files others stand is not begun with.
  func refuseForeign(in directory: String) throws(JournalError) {
    guard let first = foreign.first else { return }
    throw .inconsistent("\(directory)/\(first.name): \(first.text)")
  }

  /// The segments that hold something from `position` on, in order. Older ones are on their way to
  /// become spares; their content is of no interest.
  package func needed(from position: Int) -> [(name: String, position: Int)] {
    let first = segments.last { $0.position <= position }?.position ?? 0
    return segments.filter { $0.position >= first }
  }

  // MARK: Kinds

  package static func kind(of name: String) -> Kind {
    if name == FailureMark.name { return .failureMark }
    guard let dot = name.lastIndex(of: ".") else { return .stranger }
    let stem = name[..<dot]
    switch name[dot...] {
    case ".segment":
      if let number = spareNumber(stem) { return .spare(number) }
      return position(stem).map { .segment($0) } ?? .foreign
    case ".checkpoint": return position(stem).map { .checkpoint($0) } ?? .foreign
    case ".lanes": return laneNumber(stem).map { .lanes($0) } ?? .foreign
    case ".scratch": return laneNumber(stem).map { .unfinishedLanes($0) } ?? .stranger
    case ".new": return unfinished(String(stem))
    default: return .stranger
    }
  }

  private static func unfinished(_ name: String) -> Kind {
    switch kind(of: name) {
    case .checkpoint(let position): .unfinishedCheckpoint(position)
    case .lanes(let number), .unfinishedLanes(let number):
      name.hasSuffix(".new") ? .stranger : .unfinishedLanes(number)
    default: .stranger
    }
  }

  private static func position(_ stem: Substring) -> Int? {
    hexadecimal(stem).flatMap { $0 <= SegmentHeader.positionMax ? Int($0) : nil }
  }

  /// One is always left above, so that there is a next.
  private static func laneNumber(_ stem: Substring) -> UInt32? {
    hexadecimal(stem).flatMap { $0 < UInt32.max ? UInt32($0) : nil }
  }

  /// Sixteen digits, as they are written.
  private static func hexadecimal(_ stem: Substring) -> UInt64? {
    let isWritten = stem.utf8.allSatisfy { byte in
      (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }
    return stem.utf8.count == 16 && isWritten ? UInt64(stem, radix: 16) : nil
  }

  private static func spareNumber(_ stem: Substring) -> Int? {
    let prefix = "spare-"
    guard stem.hasPrefix(prefix), let number = Int(stem.dropFirst(prefix.count)), number >= 0,
      number < 1 << 62, stem == "\(prefix)\(number)"
    else { return nil }
    return number
  }
}
