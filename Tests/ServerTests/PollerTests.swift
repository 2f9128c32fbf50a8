import IO
import Testing

/// What the reactor asks of epoll.
@Suite struct PollerTests {
  /// Whoever takes only a part gets the others next, before anything that came meanwhile, and without
  /// waiting; nobody is passed over.
  @Test func portionsPassNobodyOver() throws {
    let poller = try Poller()
    let wakeups = try (0..<5).map { _ in try Box(Wakeup()) }
    for (token, wakeup) in wakeups.enumerated() {
      try poller.add(
        wakeup.value.descriptor.raw, token: UInt64(token), reads: true, writes: false)
      wakeup.value.signal()
    }
    var seen: [UInt64] = []
    for _ in 0..<3 {
      var count = 0
      try poller.waitInPortions(timeoutMilliseconds: -1) { event in
        seen.append(event.token)
        count += 1
        return count < 2
      }
    }
    #expect(seen.count == 5)
    #expect(seen.sorted() == [0, 1, 2, 3, 4])
    #expect(!poller.hasMore)
  }

  /// A look finds what is ready, and leaves it to the next call.
  @Test func lookingTakesNothing() throws {
    let poller = try Poller()
    let wakeup = try Wakeup()
    try poller.add(wakeup.descriptor.raw, token: 7, reads: true, writes: false)
    #expect(try !poller.look())
    wakeup.signal()
    #expect(try poller.look())
    #expect(try poller.look())
    var seen: [UInt64] = []
    try poller.wait(timeoutMilliseconds: -1) { seen.append($0.token) }
    #expect(seen == [7])
    wakeup.clear()
    #expect(try !poller.look())
  }
}

/// A wakeup in an array.
private final class Box {
  let value: Wakeup

  init(_ value: consuming Wakeup) { self.value = value }
}
