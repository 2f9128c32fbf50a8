/// Something that the broker promises and did not keep.
package struct BrokenPromise: Error, CustomStringConvertible {
  /// Which promise, in the same words each time.
  package let promise: String
  package let detail: String

  package init(_ promise: String, _ detail: String) {
    self.promise = promise
    self.detail = detail
  }

  package var description: String { "\(promise): \(detail)" }
}

/// Throws unless a promise is kept.
func promise(
  _ condition: Bool, _ promise: @autoclosure () -> String, _ detail: @autoclosure () -> String
) throws(BrokenPromise) {
  if !condition { throw BrokenPromise(promise(), detail()) }
}
