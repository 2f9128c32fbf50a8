import Base
import Glibc
import IO

/// Why a log cannot be used.
public enum JournalError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A record that had been durable is not valid.
  case damaged(file: String, offset: Int, position: Int, reason: String)
  /// The file was written by an older version, whose format is not read any more.
  case older(file: String, version: UInt32)
  /// The file was written by a newer version.
  case newer(file: String, version: UInt32)
  /// The log, or the checkpoint of this position, says something that this program does not know.
  case unknown(String, position: Int)
  /// Files are missing or do not belong together.
  case inconsistent(String)
  case system(SystemError)

  /// What the disk did not give, of a file that is there. What it cannot read is as lost as what it
  /// changed.
  static func reading(
    _ error: SystemError, _ path: String, offset: Int = 0, position: Int = 0
  ) -> JournalError {
    guard error.code == EIO else { return .system(error) }
    return .damaged(
      file: path, offset: offset, position: position, reason: "it cannot be read: \(error)")
  }

  /// Tools can say more of it, and mend it.
  public var isDamage: Bool {
    switch self {
    case .damaged, .inconsistent: true
    case .older, .newer, .unknown, .system: false
    }
  }

  public var description: String {
    switch self {
    case .damaged(let file, let offset, let position, let reason):
      "the journal is damaged: \(file), offset \(offset) (log position \(position)): \(reason)"
    case .older(let file, let version):
      "\(file) has format version \(version), older than this program can read, which begins at"
        + " \(JournalFormat.version); nothing was changed: start the version that wrote it, or put the"
        + " journal elsewhere to begin a new one"
    case .newer(let file, let version):
      "\(file) has format version \(version), newer than this program can read"
    case .unknown(let what, let position):
      "log position \(position) has \(what), which this program does not know: the journal was"
        + " written by a newer version"
    case .inconsistent(let reason): "the journal is inconsistent: \(reason)"
    case .system(let error): "\(error)"
    }
  }
}
