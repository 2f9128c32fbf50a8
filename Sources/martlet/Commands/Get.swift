import Client

/// `martlet get`: takes a few messages of a queue.
enum Get {
  private static let queue = Option.argument("QUEUE", as: .name, "Name of the queue.")
  private static let count = Option.value(
    "count", short: "n", "N", as: .integer(1...(.max)), default: 1, shown: "1",
    "How many messages to take.")

  static let command = Command(
    name: "get", summary: "take a few messages from a queue",
    details: [
      """
      Does not wait: when the queue is empty the command ends. To look without taking, requeue; to \
      take many or to wait for more, subscribe.
      """
    ],
    arguments: [queue],
    options: [count, MessageFormat.option, AckMode.option] + BrokerOptions.all,
    examples: [
      .init("martlet get jobs", "Takes the first message and prints its body."),
      .init(
        "martlet get jobs --count 10 --ack requeue --format json",
        "Looks at the first ten messages and gives them back."),
    ],
    exitCodes: [.empty, .interrupted, .terminated],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        try await run(invocation, session)
      }
    })

  private static func run(
    _ invocation: Invocation, _ session: Session
  ) async throws(Failure) -> ExitCode {
    let queue = invocation[queue]
    let mode = invocation[AckMode.option]
    var output = StandardOutput()
    var taken = 0
    var lastTag: UInt64 = 0
    while taken < invocation[count] {
      let got = try await session.ask { channel throws(ClientError) in
        try await channel.get(queue, withoutAck: mode == .auto)
      }
      guard let (delivery, remaining) = got else { break }
      output.append(invocation[MessageFormat.option].bytes(of: delivery, remaining: remaining))
      try output.flush()
      lastTag = delivery.tag
      taken += 1
      if mode == .manual { try await session.ask { _ throws(ClientError) in try delivery.ack() } }
    }
    // What is given back earlier would come again.
    if mode == .requeue || mode == .reject, lastTag > 0 {
      try await session.ask { channel throws(ClientError) in
        try mode.settle(upTo: lastTag, on: channel)
      }
    }
    if taken == invocation[count] { return .success }
    session.notes.say(
      taken == 0
        ? #"queue "\#(queue)" is empty"#
        : #"queue "\#(queue)" had only \#(HumanWords.count(taken, "message"))"#)
    return .empty
  }
}
