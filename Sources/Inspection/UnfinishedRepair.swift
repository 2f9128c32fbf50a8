import IO
import Journal

/// A repair that was killed: the journal in its place is the old one or the new one, whole, and the
/// other is in the repair directory, under the name of the new one.
package struct UnfinishedRepair {
  package enum State: Equatable, Sendable {
    /// The old journal is in its place; what was written of a new one is of no use.
    case begun
    /// The new journal is in its place; the old one has to get its name.
    case exchanged
  }

  /// The repair directory.
  package let directory: String
  package let state: State
  private let data: String

  /// Of the new journal in the repair directory, until the two are exchanged.
  static let newName = "journal-new"
  /// A file in the new journal, until the repair is finished: tells it from the old one.
  static let mark = "repair-unfinished"

  /// Those in a data directory.
  package static func all(in data: String) throws(JournalError) -> [UnfinishedRepair] {
    var found: [UnfinishedRepair] = []
    let names = try listed(data)
    for name in names where name.hasPrefix("repair-") {
      let directory = data + "/" + name
      let new = directory + "/" + newName
      guard FileSystem.isDirectory(new) else { continue }
      let content = try listed(new)
      let isNew = content.isEmpty || content.contains(mark)
      found.append(
        UnfinishedRepair(directory: directory, state: isNew ? .begun : .exchanged, data: data))
    }
    return found
  }

  /// What it is, for people.
  package var text: String {
    switch state {
    case .begun:
      "\(directory) is of a repair that did not come to its end; the journal is as it was before it"
    case .exchanged:
      "\(directory) is of a repair that ended before it had put the old journal aside; the journal is"
        + " the repaired one"
    }
  }

  /// Removes what is of no use, or gives the old journal its name.
  package func finish() throws(JournalError) {
    let new = directory + "/" + Self.newName
    switch state {
    case .begun:
      try system { () throws(SystemError) in
        try Self.remove(new)
        for name in try FileSystem.list(directory) where Self.isOurs(name) {
          try FileSystem.remove(directory + "/" + name)
        }
        if try FileSystem.list(directory).isEmpty { try FileSystem.removeDirectory(directory) }
        try FileSystem.syncDirectory(data)
      }
    case .exchanged:
      try system { () throws(SystemError) in
        try FileSystem.rename(new, directory + "/before")
        try FileSystem.syncDirectory(directory)
      }
      try Self.unmark(data + "/journal")
    }
  }

  /// Removes a directory with files, of which the mark goes last.
  static func remove(_ directory: String) throws(SystemError) {
    let streams = directory + "/" + PartitionFiles.directory
    if FileSystem.isDirectory(streams) {
      for name in try FileSystem.list(streams) { try FileSystem.remove(streams + "/" + name) }
      try FileSystem.removeDirectory(streams)
    }
    for name in try FileSystem.list(directory) where name != mark {
      try FileSystem.remove(directory + "/" + name)
    }
    try FileSystem.remove(directory + "/" + mark)
    try FileSystem.removeDirectory(directory)
  }

  static func unmark(_ journal: String) throws(JournalError) {
    guard FileSystem.exists(journal + "/" + mark) else { return }
    try system { () throws(SystemError) in
      try FileSystem.remove(journal + "/" + mark)
      try FileSystem.syncDirectory(journal)
    }
  }

  private static func listed(_ directory: String) throws(JournalError) -> [String] {
    do throws(SystemError) {
      return try FileSystem.list(directory)
    } catch {
      throw .system(error)
    }
  }

  private static func isOurs(_ name: String) -> Bool {
    name == "report.txt" || name.hasSuffix(".damaged") || name.hasSuffix(".damaged.messages")
  }
}
