import Testing

@testable import martlet

@Suite struct BenchOptionsTests {
  @Test func withoutWordsThereIsOnePublisherAndOneConsumer() throws {
    let options = try Self.options([])
    #expect(options.publishers == 1)
    #expect(options.consumers == 1)
    #expect(options.queues == 1)
    #expect(options.size == 100)
    #expect(options.durationSeconds == 10)
    #expect(options.warmUpSeconds == 1)
    #expect(options.drainSeconds == 5)
    #expect(!options.isIdle)
  }

  @Test func idleConnectionsComeAloneUnlessOthersAreAskedFor() throws {
    #expect(try Self.options(["--idle", "5"]).isIdle)
    let both = try Self.options(["--idle", "5", "--publishers", "2"])
    #expect(both.publishers == 2)
    #expect(both.consumers == 0)
    #expect(!both.isIdle)
  }

  @Test func aNumberOfMessagesStandsForADuration() throws {
    let counted = try Self.options(["--messages", "1000"])
    #expect(counted.durationSeconds == 0)
    #expect(counted.warmUpSeconds == 0)
    let limited = try Self.options(["--messages", "1000", "--duration", "3s"])
    #expect(limited.durationSeconds == 3)
  }

  @Test(arguments: [
    ([], 1, true), (["--consumers", "3"], 3, true),
    (["--consumers", "3", "--consumer-arg", "x-stream-group=g"], 1, true),
    (["--consumers", "4", "--queues", "2", "--exchange-type", "fanout"], 4, true),
    (["--arg", "x-stream-partitions=4"], 1, false), (["--arg", "x-stream-partitions=1"], 1, true),
    (["--consumers", "3", "--queues", "2", "--consumer-arg", "x-stream-group=g"], 1, true),
  ])
  func everyConsumerOfAStreamReadsIt(words: [String], copies: Int, isOrdered: Bool) throws {
    for type in [["--queue-type", "stream"], ["--arg", "x-queue-type=stream"]] {
      try expect(copies, isOrdered, of: type + ["--prefetch", "10"] + words)
    }
  }

  private func expect(_ copies: Int, _ isOrdered: Bool, of words: [String]) throws {
    let options = try Self.options(words)
    #expect(options.copies == copies)
    #expect(options.isOrdered == isOrdered)
  }

  @Test(arguments: [
    ["--url", "http://host"], ["--size", "65MiB"], ["--exchange", "x"], ["--bindings", "3"],
    ["--bindings", "3", "--exchange-type", "fanout"], ["--prefetch", "10", "--ack-every", "11"],
    ["--publishers", "0", "--consumers", "0"], ["--rate", "1", "--publishers", "2"],
    ["--queue-type", "stream", "--queues", "2", "--consumers", "3"],
  ])
  func whatCannotWorkIsRefused(words: [String]) {
    do {
      _ = try Self.options(words)
      Issue.record("\(words) were accepted")
    } catch let error as Failure {
      #expect(error.code == .usage)
    } catch {
      Issue.record("\(words) gave \(error)")
    }
  }

  private static func options(_ words: [String]) throws -> BenchOptions {
    try BenchOptions(
      Invocation(
        of: BenchCommand.command, path: ["martlet", "bench"], words: words, environment: [:]))
  }
}
