import Client
import Server

/// `martlet publish`: sends messages.
enum Publish {
  static let exchange = Option.argument(
    "EXCHANGE", as: .name, default: "",
    "Exchange to publish to; without one the default exchange, where the key is a queue's name.")
  static let key = Option.value(
    "key", short: "k", "KEY", as: .name, default: "", "Routing key.")
  static let body = Option.optional("body", short: "b", "TEXT", as: .text, "The message itself.")
  static let file = Option.optional(
    "file", short: "f", "FILE", as: .text, "Send the content of a file; - is standard input.")
  static let lines = Option.flag(
    "lines", short: "l", "Send each line of standard input as a message.")
  static let keyFromLine = Option.flag(
    "key-from-line", "Send lines of KEY<TAB>BODY, each with its own routing key.")
  static let format = Option.value(
    "format", "FORMAT", as: .choice, default: InputFormat.raw, shown: "raw",
    """
    raw takes the message as it stands; json takes lines as subscribe --format json prints them, \
    with exchange, key, properties, headers and body. What the command line says counts more.
    """)
  static let count = Option.value(
    "count", short: "n", "N", as: .integer(1...(.max)), default: 1,
    "Send each message so many times.")
  static let rate = Option.optional(
    "rate", "N", as: .integer(1...10_000_000), "Send at most so many messages a second.")
  static let mandatory = Option.flag(
    "mandatory", "Fail if a message reaches no queue (exit code 4).")
  static let confirm = Option.flag(
    "confirm", short: "c", "Wait until the broker has confirmed every message.")
  static let confirmWindow = Option.value(
    "confirm-window", "N", as: .integer(1...1_000_000), default: 1000, shown: "1000",
    "Most unconfirmed messages at a time; 1 waits for each. Includes --confirm.")

  enum InputFormat: String, CaseIterable, Sendable {
    case raw, json
  }

  static let command = Command(
    name: "publish", summary: "send messages to an exchange or a queue",
    details: [
      """
      Sends standard input as one message, or what --body, --file or --lines name. Ends once the \
      broker has taken everything; with --confirm, once it has promised to keep it.
      """
    ],
    arguments: [exchange],
    options: [
      key, body, file, lines, keyFromLine, format, count, rate, confirm, confirmWindow, mandatory,
    ] + PropertyOptions.all + BrokerOptions.all,
    examples: [
      .init("martlet publish --key jobs --body hello", "One message to the queue \"jobs\"."),
      .init(
        "martlet publish events --key order.new.eu --file order.json --persistent --confirm",
        "A file, through an exchange, safely on the broker's disk when the command ends."),
      .init(
        "tail -f access.log | martlet publish logs --key web --lines",
        "Every line as a message, as it comes."),
      .init(
        "printf 'a.b\\thello\\n' | martlet publish amq.topic --key-from-line",
        "The routing key stands in front of each line."),
      .init(
        "martlet publish --key jobs --body x --count 100000 --rate 5000 --header kind=test",
        "A steady load, with a header."),
      .init(
        "martlet publish later --key jobs --body x --delay 10m --persistent --confirm",
        "Reaches queues in ten minutes, if the exchange \"later\" is an x-delayed-message."),
      .init(
        "martlet publish --format json --file jobs.json --confirm",
        "Sends again what \"martlet get jobs --count 100 --format json > jobs.json\" took."),
    ],
    exitCodes: [.undelivered, .interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try check(invocation)
      return try await Session.run(invocation) { session async throws(Failure) in
        try await Publication(invocation, session).run()
      }
    })

  private static func check(_ invocation: Invocation) throws(Failure) {
    try PropertyOptions.check(invocation)
    let sources = [
      (invocation.has(body), "--body"), (invocation.has(file), "--file"),
      (invocation[lines] || invocation[keyFromLine], "--lines"),
    ]
    let given = sources.filter(\.0).map(\.1)
    if given.count > 1 {
      throw Failure("\(given.joined(separator: " and ")) exclude each other", code: .usage)
    }
    if invocation[keyFromLine], invocation.has(key) {
      throw Failure("--key and --key-from-line exclude each other", code: .usage)
    }
    if invocation[format] == .json {
      guard !invocation[keyFromLine] else {
        throw Failure("--format json and --key-from-line exclude each other", code: .usage)
      }
      return
    }
    if invocation[exchange].isEmpty, invocation[key].isEmpty, !invocation[keyFromLine] {
      throw Failure(
        "--key KEY is missing: without EXCHANGE it is the name of the queue", code: .usage)
    }
  }
}

/// The options of `martlet publish` that become properties of its messages.
enum PropertyOptions {
  private static let headers = Option.fields("header", short: "H", "A header,")
  private static let persistent = Option.flag(
    "persistent", short: "p", "Messages survive a restart of the broker, in durable queues.")
  private static let contentType = text("content-type", "Such as application/json.")
  private static let contentEncoding = text("content-encoding", "Such as gzip.")
  private static let correlationID = text("correlation-id", "What this message answers.")
  private static let replyTo = text("reply-to", "Queue for answers.")
  private static let expiration = Option.optional(
    "expiration", "DURATION", as: .lifetime,
    "The message is dead-lettered or dropped when it has waited so long in a queue, such as 30s.")
  private static let delay = Option.optional(
    "delay", "DURATION", as: .lifetime,
    "The message waits so long before it is routed, at an exchange that delays: the header x-delay."
  )
  private static let priority = Option.optional(
    "priority", "N", as: .integer(0...255),
    "Higher goes first, in queues that were declared with x-max-priority.")
  private static let messageID = text("message-id", "The sender's name for the message.")
  private static let type = text("type", "The kind of message.")
  private static let appID = text("app-id", "The sender.")

  static let all: [any AnyOption] = [
    headers, persistent, contentType, contentEncoding, correlationID, replyTo, expiration,
    delay, priority, messageID, type, appID,
  ]

  /// `properties` with what the command line says of them; headers of other names stay.
  static func properties(
    _ invocation: Invocation, over properties: BasicProperties = BasicProperties()
  ) -> BasicProperties {
    var properties = properties
    func set(_ path: WritableKeyPath<BasicProperties, Name?>, _ option: Option<Name?>) {
      if let value = invocation[option] { properties[keyPath: path] = value }
    }
    set(\.contentType, contentType)
    set(\.contentEncoding, contentEncoding)
    set(\.correlationID, correlationID)
    set(\.replyTo, replyTo)
    set(\.messageID, messageID)
    set(\.type, type)
    set(\.appID, appID)
    if invocation.has(persistent) { properties.deliveryMode = invocation[persistent] ? 2 : 1 }
    if let value = invocation[priority] { properties.priority = UInt8(value) }
    if let value = invocation[expiration] { properties.expiration = Name(String(value)) }
    var given = invocation[headers].entries
    if let value = invocation[delay] {
      given.append(.init(name: delayHeader, value: .int64(Int64(value))))
    }
    if !given.isEmpty {
      var table = properties.headers ?? [:]
      for entry in given {
        table.entries.removeAll { $0.name == entry.name }
        table.entries.append(entry)
      }
      properties.headers = table
    }
    return properties
  }

  private static let delayHeader: Name = "x-delay"

  /// Who says the same twice may have meant either.
  static func check(_ invocation: Invocation) throws(Failure) {
    if invocation.has(delay), invocation[headers][delayHeader] != nil {
      throw Failure("--delay and --header x-delay exclude each other", code: .usage)
    }
  }

  private static func text(_ name: String, _ help: String) -> Option<Name?> {
    .optional(name, "TEXT", as: .name, help)
  }
}
