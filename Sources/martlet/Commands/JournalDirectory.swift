import IO
import Inspection
import Journal

/// The directory of a broker that a command of `martlet journal` was pointed at.
struct JournalDirectory {
  /// The directory with `journal` in it; nil if the journal's own directory was given and has no such
  /// name.
  let data: String?
  let journal: String

  static let argument = Option.argument(
    "DIR", as: .text, "Data directory of a broker that is stopped, or a copy of one.")

  /// Takes the data directory, or the journal's own directory.
  init(_ path: String) throws(Failure) {
    var path = path
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    guard FileSystem.exists(path) else { throw Failure("there is no directory \(path)") }
    guard FileSystem.isDirectory(path) else { throw Failure("\(path) is not a directory") }
    if FileSystem.isDirectory(path + "/journal") {
      (data, journal) = (path, path + "/journal")
      return
    }
    guard try Self.hasLog(path) else {
      throw Failure(
        "\(path) is not the data directory of a broker: it has no directory \"journal\" in it")
    }
    let isNamed = path == "journal" || path.hasSuffix("/journal")
    data = isNamed ? (path == "journal" ? "." : String(path.dropLast("/journal".count))) : nil
    journal = path
  }

  private static func hasLog(_ path: String) throws(Failure) -> Bool {
    do throws(SystemError) {
      return JournalSurvey.looksLikeJournal(try FileSystem.list(path))
    } catch {
      throw Failure("\(error)")
    }
  }

  /// What is wrong if a broker is running on the directory.
  func user() throws(Failure) -> String? {
    guard let data else { return nil }
    do throws(SystemError) {
      switch try DirectoryLock.holder(of: data) {
      case .nobody: return nil
      case .process(let id):
        return "a broker is running on \(data)" + (id.map { " (process \($0))" } ?? "")
      }
    } catch {
      throw Failure("\(error)")
    }
  }

  func refuseUser() throws(Failure) {
    if let user = try user() {
      throw Failure("\(user); stop it first, or look at a copy", code: .inUse)
    }
  }
}

extension Failure {
  init(_ error: JournalError) { self.init("\(error)") }
}

/// A line on a terminal that says what is being read.
final class JournalProgress {
  private var isShown = false
  private static let clearLine = "\r\u{1B}[K"

  func show(_ text: String) {
    guard Console.isWatched else { return }
    isShown = true
    Console.say("\(Self.clearLine)reading \(text)", terminator: "")
  }

  func end() {
    if isShown { Console.say(Self.clearLine, terminator: "") }
    isShown = false
  }
}
