import Glibc

/// What people read: results on standard output, everything else on standard error.
enum Console {
  /// Whether a person watches standard error.
  static let isWatched = isatty(STDERR_FILENO) == 1

  /// A line on standard error.
  static func say(_ text: String, terminator: String = "\n") {
    write(text + terminator, to: STDERR_FILENO)
  }

  /// An error on standard error, behind the name of the command.
  static func complain(_ text: String, path: [String] = ["martlet"]) {
    say("\(path.joined(separator: " ")): \(text)")
  }

  /// Text on standard output, such as help.
  static func show(_ text: String) {
    write(text, to: STDOUT_FILENO)
  }

  /// Gives up silently: nobody is left to be told.
  private static func write(_ text: String, to descriptor: Int32) {
    var text = text
    text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return }
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    }
  }
}
