/// The version of a journal's files, the same in all of them; `Specs/Journal.md` has what it means.
package enum JournalFormat {
  static let version: UInt32 = 5

  /// A file with another version, which nobody here can read.
  package enum Stranger: Error, Equatable {
    case older(UInt32)
    case newer(UInt32)

    package func error(_ file: String) -> JournalError {
      switch self {
      case .older(let version): .older(file: file, version: version)
      case .newer(let version): .newer(file: file, version: version)
      }
    }
  }

  /// nil for the present version, and for zero, which none has.
  static func stranger(_ version: UInt32) -> Stranger? {
    if version > Self.version { return .newer(version) }
    return version > 0 && version < Self.version ? .older(version) : nil
  }
}
