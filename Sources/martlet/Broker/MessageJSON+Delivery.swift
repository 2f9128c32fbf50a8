import Client
import JSON

extension MessageJSON {
  /// With how many remain behind it, if that is known.
  static func write(_ delivery: Delivery, _ remaining: Int?, into json: inout JSONWriter) {
    let message = delivery.message
    write("exchange", message.exchange, into: &json)
    write("key", message.routingKey, into: &json)
    json.field("redelivered", delivery.isRedelivered)
    if let remaining { json.field("remaining", remaining) }
    write(message.properties, into: &json)
    if let text = message.text {
      json.field("body", text)
    } else {
      json.field("body" + base64Suffix, Base64.encode(message.body))
    }
  }
}
