/// Runs the broker until it is told to stop; the result is the process's exit code.
public func runServer(_ options: Options) -> Int32 {
  fatalError("the server is not there yet")
}
