import Client
import JSON
import Management

extension Session {
  private static let address: Name = "amq.martlet.management"
  private static let replies: Name = "amq.rabbitmq.reply-to"

  /// Asks the broker itself (Specs/Management.md); `request` writes the fields of the request. What the broker finds
  /// wrong is the command's failure. Once for a session.
  func askBroker(
    _ request: @Sendable (inout JSONWriter) -> Void
  ) async throws(Failure) -> JSONValue {
    var json = JSONWriter()
    json.object(request)
    let body = json.bytes
    let answer = try await ask { channel throws(ClientError) -> Delivery? in
      let consumer = try await channel.consume(Self.replies, withoutAck: true)
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
      return try await consumer.next()
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
