/// Stops the process with `text` when `condition` is false. For our own mistakes only, never for a
/// peer's or the world's; it is on in release builds, where `precondition` would print nothing.
@inline(__always)
public func invariant(
  _ condition: @autoclosure () -> Bool, _ text: @autoclosure () -> String,
  file: StaticString = #fileID, line: UInt = #line
) {
  if !condition() {
    invariantFailed(text(), file: file, line: line)
  }
}

@inline(never)
public func invariantFailed(
  _ text: String, file: StaticString = #fileID, line: UInt = #line
) -> Never {
  fatalError("invariant broken: \(text)", file: file, line: line)
}
