import Glibc

/// The world's failure: a system call that did not do what was asked.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The value of `errno`.
  public let code: Int32
  /// What was attempted, such as `open /var/lib/martlet/lock`.
  public let operation: String

  public init(_ operation: String, code: Int32 = errno) {
    self.code = code
    self.operation = operation
  }

  public var description: String { "\(operation): \(String(cString: strerror(code)))" }
}

/// The result of a system call, tried again when a signal interrupted it.
@inline(__always)
func retrying<Result: SignedInteger>(_ call: () -> Result) -> Result {
  while true {
    let result = call()
    if result != -1 || errno != EINTR { return result }
  }
}
