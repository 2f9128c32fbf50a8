import AMQP
import Base
import Client
import Filters

/// A condition that this side of the connection tries on messages (Specs/Filters.md).
struct MessageFilter: Sendable {
  private let filter: Filter

  init(_ text: String) throws(UsageError) {
    do throws(FilterError) {
      filter = try Filter(Array(text.utf8))
    } catch {
      throw UsageError("--filter: \(error.reason)")
    }
  }

  /// Whether it is true, not false nor unknown.
  func matches(_ message: Message) -> Bool {
    var names = ByteBuffer()
    names.append(message.exchange)
    names.append(message.routingKey)
    var properties = ByteBuffer()
    message.properties.encode(into: &properties)
    let headers = PropertyFlags.headers.place(in: properties.readable.bytes) ?? 0..<0
    var steps = 0
    return filter.matches(
      FilteredMessage(
        names: names.readable.bytes, properties: properties.readable.bytes, headers: headers,
        body: message.body.span.bytes),
      steps: &steps)
  }
}
