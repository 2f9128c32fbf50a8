import CSystem
import Glibc

/// What one descriptor is ready for.
public struct PollEvent: Sendable {
  /// What the descriptor was registered with.
  public let token: UInt64
  public let isReadable: Bool
  public let isWritable: Bool
  /// The peer is gone or the descriptor is in error; a read says which.
  public let isHangup: Bool
}

/// Level-triggered epoll.
public final class Poller {
  private let descriptor: FileDescriptor
  private var events: [epoll_event]
  /// Those of the last call that were not handed over yet.
  private var rest = 0..<0

  public init(eventsMax: Int = 256) throws(SystemError) {
    let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard raw >= 0 else { throw SystemError("epoll_create1") }
    descriptor = FileDescriptor(owning: raw)
    events = Array(repeating: epoll_event(), count: eventsMax)
  }

  public func add(
    _ raw: Int32, token: UInt64, reads: Bool, writes: Bool
  ) throws(SystemError) {
    try control(EPOLL_CTL_ADD, raw, token, reads, writes)
  }

  public func change(
    _ raw: Int32, token: UInt64, reads: Bool, writes: Bool
  ) throws(SystemError) {
    try control(EPOLL_CTL_MOD, raw, token, reads, writes)
  }

  public func remove(_ raw: Int32) {
    _ = epoll_ctl(descriptor.raw, EPOLL_CTL_DEL, raw, nil)
  }

  /// Waits until something is ready, or `timeoutMilliseconds` have passed (-1: for ever), and hands
  /// each event to `body`.
  public func wait(
    timeoutMilliseconds: Int32, _ body: (PollEvent) -> Void
  ) throws(SystemError) {
    try waitInPortions(timeoutMilliseconds: timeoutMilliseconds) { event in
      body(event)
      return true
    }
  }

  /// The last call left something for the next one.
  public var hasMore: Bool { !rest.isEmpty }

  /// The same until `body` returns false: the next call goes on with the others, without waiting,
  /// so that nobody is passed over. What they tell may be over by then.
  public func waitInPortions(
    timeoutMilliseconds: Int32, _ body: (PollEvent) -> Bool
  ) throws(SystemError) {
    if rest.isEmpty { try gather(timeoutMilliseconds: timeoutMilliseconds) }
    while let index = rest.first {
      rest.removeFirst()
      if !body(event(at: index)) { break }
    }
  }

  /// Whether something is ready, without waiting; the next call of `waitInPortions` hands it over.
  public func look() throws(SystemError) -> Bool {
    if rest.isEmpty { try gather(timeoutMilliseconds: 0) }
    return !rest.isEmpty
  }

  private func gather(timeoutMilliseconds: Int32) throws(SystemError) {
    let count = epoll_wait(descriptor.raw, &events, Int32(events.count), timeoutMilliseconds)
    if count < 0 {
      if errno == EINTR { return }
      throw SystemError("epoll_wait")
    }
    rest = 0..<Int(count)
  }

  private func event(at index: Int) -> PollEvent {
    withUnsafePointer(to: &events[index]) { pointer in
      let flags = system_epoll_events(pointer)
      return PollEvent(
        token: system_epoll_data(pointer),
        isReadable: flags & EPOLLIN.rawValue != 0,
        isWritable: flags & EPOLLOUT.rawValue != 0,
        isHangup: flags & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0)
    }
  }

  private func control(
    _ operation: Int32, _ raw: Int32, _ token: UInt64, _ reads: Bool, _ writes: Bool
  ) throws(SystemError) {
    let flags = (reads ? EPOLLIN.rawValue : 0) | (writes ? EPOLLOUT.rawValue : 0)
    var event = system_epoll_event(flags, token)
    guard epoll_ctl(descriptor.raw, operation, raw, &event) == 0 else {
      throw SystemError("epoll_ctl")
    }
  }
}
