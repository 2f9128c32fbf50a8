import Glibc
import IO
import Testing

@testable import Server

@Suite struct LogTextTests {
  @Test(arguments: [
    ("plain text, ümläut, 日本", "plain text, ümläut, 日本"),
    ("a\nb\r\t\u{0}\u{7F}", #"a\u{a}b\u{d}\u{9}\u{0}\u{7f}"#),
    ("\u{80}\u{9B}2J\u{9F}", #"\u{80}\u{9b}2J\u{9f}"#),
    ("x\u{2028}y\u{2029}z", #"x\u{2028}y\u{2029}z"#),
    ("\u{202E}gpj.exe\u{200B}\u{FEFF}", #"\u{202e}gpj.exe\u{200b}\u{feff}"#),
    ("\u{AD}\u{E0041}", #"\u{ad}\u{e0041}"#),
    ("👩‍🚀", #"👩\u{200d}🚀"#),
  ])
  func whatIsNotToBeSeenIsEscaped(text: String, expected: String) {
    #expect(LogText.printable(text) == expected)
  }

  @Test func linesAndNamesHaveAnEnd() {
    let line = LogText.line(String(repeating: "ü", count: 30_000))
    #expect(line.hasSuffix("ü… (\(60_000 - LogText.lineBytesMax) more bytes)"))
    #expect(line.utf8.count < LogText.lineBytesMax + 40)
    // Control characters take more room when they are escaped, and are cut behind that.
    let controls = LogText.line(String(repeating: "\u{1}", count: 30_000))
    #expect(controls.utf8.count < LogText.lineBytesMax + 40)
    #expect(LogText.line("short") == "short")
    let name = LogText.name(String(repeating: "n", count: 129))
    #expect(name == String(repeating: "n", count: 128) + "…")
    #expect(LogText.name(String(repeating: "n", count: 128)).count == 128)
  }
}

@Suite struct LogRepetitionTests {
  private static let window = LogRepetition.windowMilliseconds

  @Test func whatIsRareIsToldInFull() {
    var repetition = LogRepetition()
    for number in 0..<100 {
      let now = Int64(number) * Self.window
      let isTold = repetition.admits(.loginRefused, of: "10.0.0.7:1 -> here", now: now)
      #expect(isTold)
    }
    #expect(repetition.due == nil)
    let summaries = repetition.summaries(now: .max)
    #expect(summaries == [])
  }

  @Test func whatIsOftenIsCountedByWhoCausesIt() {
    var repetition = LogRepetition()
    let told = (0..<4332).filter { number in
      let host = number % 4 == 0 ? "[::1]" : "10.0.0.7"
      return repetition.admits(.loginRefused, of: "\(host):\(number) -> x:1", now: 5)
    }
    #expect(told.count == LogKind.loginRefused.linesMax)
    #expect(repetition.due == 5 + Self.window)
    let early = repetition.summaries(now: 4 + Self.window)
    #expect(early == [])
    let summaries = repetition.summaries(now: 5 + Self.window)
    #expect(
      summaries.map(\.text) == [
        "… and 4,312 more in the last 10 s: logins refused: 3,234 of 10.0.0.7, 1,078 of [::1]"
      ])
    #expect(summaries.map(\.level) == [.warning])
    #expect(repetition.due == nil)
  }

  @Test func aFloodThatGoesOnCostsTwoLinesAWindow() {
    var repetition = LogRepetition()
    var lines = 0
    for window in 0..<10 {
      let now = Int64(window) * Self.window
      lines += repetition.summaries(now: now).count
      for number in 0..<1000
      where repetition.admits(.turnedAway, of: "10.1.\(number / 250).\(number % 250):1", now: now) {
        lines += 1
      }
    }
    #expect(lines == LogKind.turnedAway.linesMax + 9 * 2)
  }

  @Test func manyAddressesTakeNoMoreRoom() {
    var repetition = LogRepetition()
    for number in 0..<1020 {
      _ = repetition.admits(.notOpened, of: "10.0.\(number / 100).\(number % 100):1", now: 0)
    }
    let text = repetition.summaries(now: Self.window).map(\.text).joined()
    #expect(text.contains("and 1,000 more"))
    #expect(text.hasSuffix(", 992 of others"))
    #expect(text.split(separator: ",").count == 2 + LogRepetition.addressesMax)
  }

  @Test func kindsDoNotHideEachOther() {
    var repetition = LogRepetition()
    for _ in 0..<100 { _ = repetition.admits(.notOpened, of: "a:1", now: 0) }
    let isTold = repetition.admits(.loginRefused, of: "a:1", now: 0)
    #expect(isTold)
    let summaries = repetition.summaries(now: .max)
    #expect(summaries.count == 1)
  }
}

@Suite struct LogWriterTests {
  /// A pipe that nobody reads until it is asked for.
  private struct Pipe: ~Copyable {
    let reads: FileDescriptor
    let writes: FileDescriptor

    init() {
      var ends: [Int32] = [0, 0]
      _ = pipe(&ends)
      reads = FileDescriptor(owning: ends[0])
      writes = FileDescriptor(owning: ends[1])
    }

    /// Reads lines until one has `text`.
    func lines(upTo text: String) -> [Substring] {
      var bytes: [UInt8] = []
      var buffer = [UInt8](repeating: 0, count: 65_536)
      while true {
        guard case .count(let count) = buffer.withUnsafeMutableBytes({ reads.read(into: $0) })
        else { return [] }
        bytes += buffer[..<count]
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        if bytes.last == 10, lines.contains(where: { $0.contains(text) }) { return lines }
      }
    }
  }

  /// Nothing waits for the reader; what did not fit is counted, and the count is told.
  @Test func aStalledReaderHoldsNobodyUp() throws {
    let pipe = Pipe()
    let writer = try LogWriter(descriptor: pipe.writes.raw)
    let log = Log(level: .info, writer: writer)
    let count = 3 * LogWriter.linesMax
    let padding = String(repeating: "x", count: 100)
    for number in 0..<count { log.info("line \(number) \(padding)") }
    let lines = pipe.lines(upTo: "were dropped")
    let dropped = try #require(lines.last?.split(separator: " ").compactMap { Int($0) }.first)
    #expect(dropped > LogWriter.linesMax)
    #expect(lines.count - 1 + dropped == count)
    for (number, line) in lines.dropLast().enumerated() {
      #expect(line.contains("info    line \(number) x"))
    }
    // And on it goes.
    log.warning("again")
    #expect(pipe.lines(upTo: "again").count == 1)
    writer.close()
  }

  @Test func theEndTellsWhatWasCounted() throws {
    let pipe = Pipe()
    let writer = try LogWriter(descriptor: pipe.writes.raw)
    let log = Log(level: .warning, writer: writer)
    for number in 0..<50 { log.tell(.lost, of: "10.0.0.1:\(number) -> b:1", "lost \(number)") }
    log.info("not told")
    log.error("the last words")
    writer.close()
    let lines = pipe.lines(upTo: "more in the last").map { $0.dropFirst(25) }
    let expected =
      (0..<20).map { "warning lost \($0)" } + [
        "error   the last words",
        "warning … and 30 more in the last 10 s: open connections lost: 30 of 10.0.0.1",
      ]
    #expect(lines.map(String.init) == expected)
  }

  @Test func aReaderThatIsGoneIsNoError() throws {
    let writer: LogWriter
    do {
      let pipe = Pipe()
      writer = try LogWriter(descriptor: dup(pipe.writes.raw))
    }
    signal(SIGPIPE, SIG_IGN)
    let log = Log(level: .info, writer: writer)
    for number in 0..<100 { log.info("line \(number)") }
    writer.close()
  }
}
