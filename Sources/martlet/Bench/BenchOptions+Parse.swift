import Client

/// One option of `martlet bench`.
struct BenchOption: Sendable {
  let name: String
  /// What its value is called in the help; empty for a switch.
  let value: String
  let help: String
  let apply: @Sendable (inout BenchOptions, String) throws(BenchUsageError) -> Void

  init(
    _ name: String, _ value: String, _ help: String,
    _ apply: @escaping @Sendable (inout BenchOptions, String) throws(BenchUsageError) -> Void
  ) {
    self.name = name
    self.value = value
    self.help = help
    self.apply = apply
  }
}

extension BenchOptions {
  /// Reads `--name value` and `--name=value`.
  static func parse(_ arguments: [String]) throws(BenchUsageError) -> BenchOptions {
    var options = BenchOptions()
    var given: Set<String> = []
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard let option = declared.first(where: { "--" + $0.name == parts[0] }) else {
        throw BenchUsageError("unknown argument \(argument)")
      }
      given.insert(option.name)
      if option.value.isEmpty {
        guard parts.count == 1 else { throw BenchUsageError("--\(option.name) takes no value") }
        try option.apply(&options, "")
        continue
      }
      guard let value = parts.count == 2 ? String(parts[1]) : rest.popFirst() else {
        throw BenchUsageError("--\(option.name) needs a value: \(option.value)")
      }
      try option.apply(&options, value)
    }
    try options.complete(given)
    return options
  }

  static var help: String {
    let rows = declared.map { option in
      let head = "  --\(option.name)" + (option.value.isEmpty ? "" : " \(option.value)")
      return head.padded(to: 26) + " " + option.help
    }
    return """
      Usage: martlet bench [options]

      Publishes and consumes as fast as the broker can, or at a given rate, checks that everything
      arrives once and in order, and reports rates and latencies. Works with any AMQP 0-9-1 broker.
      Ends with status 0, 1 if anything went wrong, 2 if the arguments make no sense.

      \(rows.joined(separator: "\n"))
      """
  }

  static let declared: [BenchOption] = [
    BenchOption("url", "URL", "the broker (amqp://guest:guest@localhost:5672)") {
      (options, text) throws(BenchUsageError) in
      do { options.url = try ConnectionURL(text) } catch { throw BenchUsageError("\(error)") }
    },
    BenchOption("name", "NAME", "stands in connection names and in the report (bench)") {
      (options, text) in options.name = text
    },
    BenchOption("publishers", "N", "connections that publish (1)") {
      (options, text) throws(BenchUsageError) in
      options.publishers = try count(text, 0...65_536)
    },
    BenchOption("consumers", "N", "connections that consume (1)") {
      (options, text) throws(BenchUsageError) in
      options.consumers = try count(text, 0...65_536)
    },
    BenchOption("queues", "N", "queues (1)") { (options, text) throws(BenchUsageError) in
      options.queues = try count(text, 1...65_536)
    },
    BenchOption("queue", "NAME", "the queue's name, or what the names begin with") {
      (options, text) in options.queue = text
    },
    BenchOption("queue-type", "TYPE", "x-queue-type: classic, quorum, stream") {
      (options, text) in options.queueType = text
    },
    BenchOption("exchange", "NAME", "the exchange; one of the broker's own, amq.*, is left alone") {
      (options, text) in options.exchange = text
    },
    BenchOption("exchange-type", "TYPE", "default, direct, fanout, topic, headers (default)") {
      (options, text) throws(BenchUsageError) in
      guard let type = ExchangeType(rawValue: text) else {
        throw BenchUsageError("there is no exchange type \(text)")
      }
      options.exchangeType = type
    },
    BenchOption("bindings", "N", "further bindings of the exchange, which match nothing (0)") {
      (options, text) throws(BenchUsageError) in
      options.bindings = try count(text, 0...10_000_000)
    },
    BenchOption("size", "BYTES", "size of a message's body; 16 or more to measure latency (100)") {
      (options, text) throws(BenchUsageError) in options.size = try bytes(text)
    },
    BenchOption("persistent", "", "publish persistent messages") { (options, _) in
      options.isPersistent = true
    },
    BenchOption("durable", "", "declare durable queues and exchanges") { (options, _) in
      options.isDurable = true
    },
    BenchOption("mandatory", "", "have messages returned that reach no queue") { (options, _) in
      options.isMandatory = true
    },
    BenchOption("confirm", "WINDOW", "use confirms, so many outstanding per publisher (0: none)") {
      (options, text) throws(BenchUsageError) in
      options.confirmWindow = try count(text, 0...1_000_000)
    },
    BenchOption("prefetch", "N", "unacknowledged messages per consumer (0: no limit)") {
      (options, text) throws(BenchUsageError) in
      options.prefetch = try count(text, 0...65_535)
    },
    BenchOption("ack-every", "N", "acknowledge every N messages at once (0: automatically)") {
      (options, text) throws(BenchUsageError) in
      options.acknowledgeEvery = try count(text, 0...1_000_000)
    },
    BenchOption("rate", "N", "messages per second in total, evenly spread (0: no limit)") {
      (options, text) throws(BenchUsageError) in
      options.rate = try count(text, 0...1_000_000_000)
    },
    BenchOption("duration", "TIME", "how long to measure, such as 30s or 500ms (10s)") {
      (options, text) throws(BenchUsageError) in options.durationSeconds = try seconds(text)
    },
    BenchOption("messages", "N", "publish so many messages instead; measures from the first on") {
      (options, text) throws(BenchUsageError) in
      options.messages = try count(text, 1...1_000_000_000_000)
    },
    BenchOption("warm-up", "TIME", "how long to run before measuring (1s)") {
      (options, text) throws(BenchUsageError) in options.warmUpSeconds = try seconds(text)
    },
    BenchOption("drain", "TIME", "silence after which missing messages count as lost (5s)") {
      (options, text) throws(BenchUsageError) in options.drainSeconds = try seconds(text)
    },
    BenchOption("idle", "N", "open N connections and hold them; alone unless others are asked for")
    {
      (options, text) throws(BenchUsageError) in
      options.idleConnections = try count(text, 0...1_000_000)
    },
    BenchOption("keep", "", "do not delete queues and exchanges at the end") { (options, _) in
      options.keepsQueues = true
    },
    BenchOption("pid", "PID", "the broker's process, to report its CPU time and memory") {
      (options, text) throws(BenchUsageError) in
      options.brokerPID = Int32(try count(text, 1...Int(Int32.max)))
    },
    BenchOption("json", "", "report as one JSON object") { (options, _) in
      options.printsJSON = true
    },
    BenchOption("progress", "", "a line per second on standard error, terminal or not") {
      (options, _) in options.printsProgress = true
    },
  ]

  /// Settles what depends on which options were given, and refuses what cannot work.
  private mutating func complete(_ given: Set<String>) throws(BenchUsageError) {
    if idleConnections > 0 {
      if !given.contains("publishers") { publishers = 0 }
      if !given.contains("consumers") { consumers = 0 }
    }
    if messages > 0 {
      if !given.contains("duration") { durationSeconds = 0 }
      warmUpSeconds = 0
    }
    if !exchange.isEmpty, exchangeType == .default {
      throw BenchUsageError("--exchange needs an --exchange-type")
    }
    if bindings > 0, exchangeType == .default || exchangeType == .fanout {
      throw BenchUsageError("--bindings needs a direct, topic or headers exchange")
    }
    if prefetch > 0, acknowledgeEvery > prefetch {
      throw BenchUsageError(
        "--ack-every \(acknowledgeEvery) is never reached with --prefetch \(prefetch)")
    }
    if publishers + consumers + idleConnections == 0 {
      throw BenchUsageError("there is nothing to do without publishers, consumers and idle connections")
    }
    if publishers > 0, rate > 0, rate < publishers {
      throw BenchUsageError("--rate must be at least one message a second for each publisher")
    }
  }

  private static func count(
    _ text: String, _ range: ClosedRange<Int>
  ) throws(BenchUsageError) -> Int {
    guard let number = Int(text.filter { $0 != "_" }), range.contains(number) else {
      throw BenchUsageError("\(text) is not a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  private static func bytes(_ text: String) throws(BenchUsageError) -> Int {
    let units = [("KiB", 1024), ("MiB", 1 << 20), ("k", 1024), ("M", 1 << 20), ("", 1)]
    for (unit, factor) in units where text.hasSuffix(unit) {
      return try count(String(text.dropLast(unit.count)), 0...(64 << 20) / factor) * factor
    }
    throw BenchUsageError("\(text) is not a size")
  }

  private static func seconds(_ text: String) throws(BenchUsageError) -> Double {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)]
    for (unit, factor) in units where text.hasSuffix(unit) {
      guard let number = Double(text.dropLast(unit.count)), number >= 0, number < 1e7 else { break }
      return number * factor
    }
    throw BenchUsageError("\(text) is not a duration, such as 10s, 500ms or 2m")
  }
}

extension String {
  func padded(to width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }

  func paddedLeft(to width: Int) -> String {
    String(repeating: " ", count: max(0, width - count)) + self
  }
}
