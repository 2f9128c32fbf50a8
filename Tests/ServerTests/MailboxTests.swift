import IO
import Synchronization
import Testbed
import Testing

@testable import Server

@Suite struct MailboxTests {
  private static func mailbox(_ countMax: Int) throws -> Mailbox<Int> {
    try Mailbox(countMax: countMax)
  }

  /// Whether its descriptor can be read, without waiting.
  private func isAnnounced(_ mailbox: Mailbox<Int>) throws -> Bool {
    let poller = try Poller()
    try poller.add(mailbox.raw, token: 1, reads: true, writes: false)
    return try poller.look()
  }

  @Test func messagesComeInTheirOrderAndOnce() throws {
    let mailbox = try Self.mailbox(10)
    for number in 1...3 { #expect(mailbox.post(number) == .posted) }
    #expect(mailbox.take() == [1, 2, 3])
    #expect(mailbox.take() == [])
  }

  @Test func whoFindsItFullIsTold() throws {
    let mailbox = try Self.mailbox(2)
    #expect(mailbox.post(1) == .posted)
    #expect(mailbox.post(2) == .posted)
    #expect(mailbox.post(3) == .full)
    #expect(mailbox.take() == [1, 2])
    #expect(mailbox.post(4) == .posted)
    #expect(mailbox.take() == [4])
  }

  @Test func nobodyPostsWhereNobodyTakes() throws {
    let mailbox = try Self.mailbox(2)
    _ = mailbox.post(1)
    #expect(mailbox.close() == [1])
    #expect(mailbox.post(2) == .closed)
    #expect(mailbox.take() == [])
  }

  @Test func itIsAnnouncedWhileThereIsSomething() throws {
    let mailbox = try Self.mailbox(2)
    #expect(try !isAnnounced(mailbox))
    _ = mailbox.post(1)
    #expect(try isAnnounced(mailbox))
    _ = mailbox.post(2)
    _ = mailbox.post(3)
    _ = mailbox.take()
    #expect(try !isAnnounced(mailbox))
    _ = mailbox.post(4)
    #expect(try isAnnounced(mailbox))
  }

  /// One thread waits in a poller without a limit of time: a message that was posted and not announced
  /// would keep it for ever.
  @Test func nothingIsLostBetweenPostAndWait() throws {
    let mailbox = try Self.mailbox(7)
    let (senders, each) = (8, 2000)
    for sender in 0..<senders {
      _ = try Thread(name: "sender") {
        for number in 0..<each {
          while mailbox.post(sender * each + number) == .full { Thread.giveWay() }
        }
      }
    }
    let poller = try Poller()
    try poller.add(mailbox.raw, token: 1, reads: true, writes: false)
    var next = [Int](repeating: 0, count: senders)
    var count = 0
    var most = 0
    while count < senders * each {
      try poller.wait(timeoutMilliseconds: -1) { _ in }
      let messages = mailbox.take()
      most = max(most, messages.count)
      for message in messages {
        let (sender, number) = message.quotientAndRemainder(dividingBy: each)
        #expect(next[sender] == number)
        next[sender] = number + 1
      }
      count += messages.count
    }
    #expect(most <= mailbox.countMax)
    #expect(try !isAnnounced(mailbox))
  }
}

/// What comes to the loop from other threads and from signals.
@Suite struct LoopCommandTests {
  private func reactor(
    _ loop: Loop, _ log: Log, _ commands: Mailbox<LoopCommand>
  ) throws -> Reactor {
    try Reactor(
      loop: loop, log: log, listeners: [], signals: SignalQueue([]), commands: commands,
      journalWake: SharedWakeup(),
      room: #require(ClientRoom(connectionsMax: 10, descriptorLimit: 1024)), pollNanosecondsMax: 0)
  }

  /// A loop without clients waits for ever; whatever is posted ends the wait and is performed in order.
  @Test func otherThreadsWakeTheLoop() throws {
    let told = Told()
    let log = Log(level: .info) { told.add($0) }
    let loop = try TestLoop(log: log)
    let commands = try Mailbox<LoopCommand>(countMax: 5)
    let reactor = try reactor(loop.loop, log, commands)
    let (senders, each) = (4, 300)
    let left = Atomic(senders)
    for sender in 0..<senders {
      _ = try Thread(name: "sender") {
        for number in 0..<each {
          while commands.post(.tell("\(sender) \(number)")) == .full { Thread.giveWay() }
        }
        guard left.subtract(1, ordering: .relaxed).newValue == 0 else { return }
        while commands.post(.stop(asker: "a test")) == .full { Thread.giveWay() }
      }
    }
    try reactor.run()
    for sender in 0..<senders {
      #expect(
        told.all.filter { $0.hasPrefix("\(sender) ") } == (0..<each).map { "\(sender) \($0)" })
    }
    #expect(told.all.last == "stopping, as a test asks for")
  }

  @Test func stoppingTwiceIsAtOnce() throws {
    let told = Told()
    let loop = try TestLoop(log: Log(level: .info) { told.add($0) })
    let client = loop.connect()
    try client.open()
    loop.loop.perform(.stop(asker: "signal SIGTERM"))
    loop.turn()
    #expect(loop.loop.isStopping && !loop.loop.isOver)
    loop.loop.perform(.stop(asker: "signal SIGTERM"))
    #expect(loop.loop.isOver)
    #expect(told.all.last == "stopping at once, as asked for twice")
  }

  @Test func signalsAskForWhatTheyMean() {
    #expect(BrokerSignal.command(for: 15) == .stop(asker: "signal SIGTERM"))
    #expect(BrokerSignal.command(for: 10) == .status)
    #expect(
      BrokerSignal.command(for: 1)
        == .tell("SIGHUP changes nothing: options are read at the start, and nothing is read again")
    )
  }

  @Test func theStatusHasWhatTheOwnerAdds() throws {
    let told = Told()
    let loop = try TestLoop(log: Log(level: .info) { told.add($0) })
    loop.loop.ownersStatus = { "looks=3" }
    loop.loop.perform(.status)
    #expect(told.all.last?.hasPrefix("status: connections=0 ") == true)
    #expect(told.all.last?.contains(" looks=3 ") == true)
  }

  private final class Told: Sendable {
    private let lines = Mutex<[String]>([])

    func add(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
  }
}
