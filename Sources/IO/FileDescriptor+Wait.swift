import Glibc

extension FileDescriptor {
  /// Waits until the descriptor is ready for what is asked, at most `timeoutMilliseconds` (-1: for
  /// ever). Nil when the time has passed. An error or a hangup counts as ready: the transfer that
  /// follows says what it is.
  public func wait(
    reads: Bool, writes: Bool, timeoutMilliseconds: Int32
  ) throws(SystemError) -> Readiness? {
    let asked = (reads ? POLLIN : 0) | (writes ? POLLOUT : 0)
    var event = pollfd(fd: raw, events: Int16(asked), revents: 0)
    let count = retrying { poll(&event, 1, timeoutMilliseconds) }
    guard count >= 0 else { throw SystemError("poll") }
    guard count > 0 else { return nil }
    let found = Int32(event.revents)
    let isBroken = found & (POLLERR | POLLHUP | POLLNVAL) != 0
    return Readiness(
      isReadable: reads && (isBroken || found & POLLIN != 0),
      isWritable: writes && (isBroken || found & POLLOUT != 0))
  }
}

/// What a descriptor can do without blocking.
public struct Readiness: Equatable, Sendable {
  public let isReadable: Bool
  public let isWritable: Bool
}
