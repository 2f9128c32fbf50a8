import Client
import JSON

/// `martlet trace`: switches on and off that messages are copied for whoever listens.
enum Trace {
  private enum Wish: String, CaseIterable, Sendable {
    case on, off, show
  }

  private static let wish = Option.argument(
    "STATE", as: .choice, default: Wish.show, "on, off, or show, which changes nothing.")

  static let command = Command(
    name: "trace", summary: "copy all messages for whoever listens, or end that",
    details: [
      """
      While it is on, each message that a client publishes in the virtual host, and each that one gets, is \
      copied to the exchange "amq.rabbitmq.trace" (routing keys "publish.EXCHANGE" and "deliver.QUEUE", which \
      "martlet subscribe --exchange amq.rabbitmq.trace" listens to); its \
      headers say who it was and where it went. It costs every client speed, and ends when the broker does. \
      Without STATE it is told whether it is on.
      """,
      "Only Martlet answers this; RabbitMQ has \"rabbitmqctl trace_on\" and \"trace_off\".",
    ],
    arguments: [wish], options: BrokerOptions.all,
    examples: [
      .init("martlet trace on", "Begins it."), .init("martlet trace off", "Ends it."),
    ],
    action: .asynchronous { invocation async throws(Failure) in
      try await Session.run(invocation) { session async throws(Failure) in
        let wish = invocation[wish]
        let line = try await session.openManagement()
        let answer = try await line.ask("trace") { json in
          switch wish {
          case .on: json.field("on", true)
          case .off: json.field("on", false)
          case .show: break
          }
        }
        let state = answer.flag("traced") ? "on" : "off"
        let vhost = answer.text("vhost") ?? ""
        if wish == .show {
          Console.show(state + "\n")
        } else {
          session.notes.say(#"tracing of virtual host "\#(vhost)" is \#(state)"#)
        }
        return .success
      }
    })
}
