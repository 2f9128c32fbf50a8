import Client
import JSON

/// Where a command asks the broker itself (Specs/Management.md).
struct ManagementLine: Sendable {
  private let session: Session
  private let answers: Consumer
  private static let address: Name = "amq.martlet.management"
  private static let replies: Name = "amq.rabbitmq.reply-to"

  fileprivate init(_ session: Session) async throws(Failure) {
    self.session = session
    answers = try await session.ask { channel throws(ClientError) in
      try await channel.consume(Self.replies, withoutAck: true)
    }
  }

  /// Asks and waits for the answer; `fields` writes what is said besides the command. What the broker finds wrong
  /// is the command's failure.
  func ask(
    _ command: String, _ fields: (inout JSONWriter) -> Void
  ) async throws(Failure) -> JSONValue {
    var json = JSONWriter()
    json.object { json in
      json.field("command", command)
      fields(&json)
    }
    let body = json.bytes
    let answer = try await session.ask { channel throws(ClientError) -> Delivery? in
      var properties = BasicProperties()
      properties.replyTo = Self.replies
      properties.contentType = "application/json"
      do throws(ClientError) {
        // Whether anybody answers is known when it is confirmed.
        try await channel.publishConfirmed(
          body, key: Self.address, properties: properties, mandatory: true)
      } catch .returned {
        return nil
      }
      return try await answers.next()
    }
    guard let answer else {
      throw Failure("this broker answers no questions of this kind; Martlet does")
    }
    let read: JSONValue
    do throws(JSONValue.Problem) {
      read = try JSONValue(answer.body)
    } catch {
      throw Failure("the broker's answer is not JSON: \(error.text)")
    }
    if let problem = read.text("error") { throw Failure("the broker refused: \(problem)") }
    return read
  }
}

extension Session {
  /// Once for a session.
  func openManagement() async throws(Failure) -> ManagementLine {
    try await ManagementLine(self)
  }
}
extension JSONValue {
  /// What answers have under a name; nothing where they do not have it.
  func text(_ name: String) -> String? {
    if case .string(let text)? = member(name) { text } else { nil }
  }

  func flag(_ name: String) -> Bool {
    member(name) == .bool(true)
  }

  func number(_ name: String) -> Int {
    if case .number(let word)? = member(name) { Int(word) ?? 0 } else { 0 }
  }

  func elements(_ name: String) -> [JSONValue] {
    if case .array(let elements)? = member(name) { elements } else { [] }
  }
}
