import Client

/// `martlet bench`: the load generator.
enum BenchCommand {
  static let command = Command(
    name: "bench",
    summary: "measure a broker under load",
    details: [
      """
      Publishes and consumes as fast as the broker can, or at a given rate, checks that everything \
      arrives once and in order, and reports rates and latencies. Works with any AMQP 0-9-1 \
      broker.
      """,
      """
      Latency needs bodies of 16 bytes or more, the check of the order 8. With --rate a message \
      that could not be sent when it was due counts from then; without, one message of 128 is \
      timed, or every one if --confirm is at most 256.
      """,
      """
      What the run declares it deletes again, also when SIGINT or SIGTERM end it early. A queue \
      that is there already is used as it is, and stays. Ends with 1 if anything was lost, \
      repeated, out of order, refused or returned, or a connection was lost.
      """,
    ],
    options: all,
    examples: [
      .init("martlet bench --size 16", "As many small messages as one queue takes."),
      .init(
        "martlet bench --persistent --durable --confirm 1000 --publishers 8",
        "Messages that the broker has to have on disk before it confirms them."),
      .init(
        "martlet bench --persistent --durable --transaction 100",
        "The same in transactions, each of which is there whole or not at all."),
      .init(
        "martlet bench --rate 1000 --confirm 100 --duration 30s",
        "Latency at a light load."),
      .init(
        "martlet bench --exchange-type fanout --queues 10 --consumers 10",
        "Every message to ten queues."),
      .init(
        "martlet bench --idle 10000 --pid 4711 --duration 1m",
        "What ten thousand connections cost the broker in process 4711 that do nothing."),
    ],
    action: .blocking(run))

  @Sendable private static func run(_ invocation: Invocation) throws(Failure) -> ExitCode {
    let options = try BenchOptions(invocation)
    do {
      let report = try Bench(options).run()
      Console.show((options.printsJSON ? report.json : report.text) + "\n")
      return report.hasErrors ? .failure : .success
    } catch let error as Failure {
      throw error
    } catch {
      throw Failure("\(error)")
    }
  }

  private static let all: [any AnyOption] = [
    BrokerOptions.url, name, publishers, consumers, queues, queue, queueType, exchange,
    exchangeType, bindings, arguments, size, persistent, durable, mandatory, priorities, expiration,
    delay, confirm, transaction, prefetch, ackEvery, consumerArguments, rate, duration, messages,
    warmUp, drain, idle, keep, pid, json, progress,
  ]

  // MARK: Who

  static let name = Option.value(
    "name", "NAME", as: .text, default: "bench", shown: "bench",
    "Stands in connection names and in the report.")
  static let publishers = Option.optional(
    "publishers", "N", as: .integer(0...65_536), "Connections that publish. Default: 1.")
  static let consumers = Option.optional(
    "consumers", "N", as: .integer(0...65_536), "Connections that consume. Default: 1.")
  static let idle = Option.value(
    "idle", "N", as: .integer(0...1_000_000), default: 0, shown: "0",
    "Open N connections and hold them; alone unless publishers or consumers are asked for.")

  // MARK: Where

  static let queues = Option.value(
    "queues", "N", as: .integer(1...65_536), default: 1, shown: "1", "How many queues.")
  static let queue = Option.value(
    "queue", "NAME", as: .text, default: "", "The queue's name, or what the names begin with.")
  static let queueType = Option.value(
    "queue-type", "TYPE", as: .text, default: "", "x-queue-type: classic, quorum or stream.")
  static let exchange = Option.value(
    "exchange", "NAME", as: .text, default: "", "The exchange's name.")
  static let exchangeType = Option.value(
    "exchange-type", "TYPE", as: .choice, default: BenchOptions.ExchangeType.default,
    shown: "default", "default, direct, fanout, topic or headers.")
  static let bindings = Option.value(
    "bindings", "N", as: .integer(0...10_000_000), default: 0, shown: "0",
    "Further bindings of the exchange, which match nothing.")
  static let arguments = Option.fields("arg", short: "a", "An argument of the queues,")
  static let durable = Option.flag("durable", "Declare durable queues and exchanges.")
  static let keep = Option.flag("keep", "Do not delete queues and exchanges at the end.")

  // MARK: What

  static let size = Option.value(
    "size", "BYTES", as: .size, default: 100, shown: "100", "Size of a message's body.")
  static let persistent = Option.flag("persistent", "Publish persistent messages.")
  static let mandatory = Option.flag("mandatory", "Have messages returned that reach no queue.")
  static let priorities = Option.optional(
    "priorities", "N", as: .integer(0...255), "Give messages priorities from 0 to N in turn.")
  static let expiration = Option.optional(
    "expiration", "TIME", as: .duration, "Give messages so long to live.")
  static let delay = Option.optional(
    "delay", "TIME", as: .duration,
    "Have the exchange keep messages back, each by another time up to this.")
  static let confirm = Option.value(
    "confirm", "WINDOW", as: .integer(0...1_000_000), default: 0, shown: "0",
    "Have messages confirmed, so many outstanding per publisher; 0 uses no confirms.")
  static let transaction = Option.value(
    "transaction", "N", as: .integer(0...1_000_000), default: 0, shown: "0",
    "Publish in transactions of N messages, one after the other; 0 uses none.")
  static let prefetch = Option.value(
    "prefetch", "N", as: .integer(0...65_535), default: 0, shown: "0",
    "Unacknowledged messages per consumer; 0 is no limit.")
  static let ackEvery = Option.value(
    "ack-every", "N", as: .integer(0...1_000_000), default: 0, shown: "0",
    "Acknowledge every N messages at once; 0 lets the broker acknowledge by itself.")

  static let consumerArguments = Option.fields(
    "consumer-arg", "An argument of the consumers, such as x-stream-offset=first,")

  // MARK: How fast, how long

  static let rate = Option.value(
    "rate", "N", as: .integer(0...1_000_000_000), default: 0, shown: "0",
    "Messages per second of all publishers, evenly spread; 0 is as many as possible.")
  static let duration = Option.optional(
    "duration", "TIME", as: .duration, "How long to measure. Default: 10s.")
  static let messages = Option.optional(
    "messages", "N", as: .integer(1...1_000_000_000_000),
    """
    Publish so many messages, or consume them where nobody publishes, and measure from the first \
    to the last.
    """)
  static let warmUp = Option.value(
    "warm-up", "TIME", as: .duration, default: 1000, shown: "1s",
    "How long to run before measuring.")
  static let drain = Option.value(
    "drain", "TIME", as: .duration, default: 5000, shown: "5s",
    "Silence after which missing messages count as lost.")

  // MARK: What to tell

  static let pid = Option.optional(
    "pid", "PID", as: .integer(1...Int(Int32.max)),
    "The broker's process, to report its CPU time and memory.")
  static let json = Option.flag("json", "Report as one JSON object.")
  static let progress = Option.flag(
    "progress", "A line per second on standard error, terminal or not.")
}
