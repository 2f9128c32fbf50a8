import AMQP
import Base
import Broker
import JSON

/// `{"command":"route","message":{...}}`: where a message would go, and why.
enum RouteCommand {
  static func run(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["message"])
    guard let member = fields.value("message") else {
      throw RequestProblem(text: #"the "message" is missing"#)
    }
    let message: MessageJSON
    do throws(JSONValue.Problem) {
      message = try MessageJSON(member)
    } catch {
      throw RequestProblem(text: error.text)
    }
    let exchange = message.exchange ?? ""
    let explained = ExplainedMessage(
      exchange: exchange, key: message.key ?? "", properties: message.properties,
      body: message.body)
    let vhost = request.vhost
    let isThere = vhost.explain(explained, for: request.peer) { explanation in
      var json = JSONWriter()
      write(explanation, into: &json)
      request.answer(json.bytes)
    }
    guard isThere else {
      throw RequestProblem(text: "no exchange '\(exchange)' in vhost '\(vhost.name)'")
    }
  }

  private static func write(_ explanation: RouteExplanation, into json: inout JSONWriter) {
    json.object { json in
      json.key("exchanges")
      json.array { json in
        for stop in explanation.stops { json.object { write(stop, into: &$0) } }
      }
      json.key("queues")
      json.array { json in
        for arrival in explanation.arrivals {
          json.object { json in
            json.field("name", arrival.queue.description)
            json.field("durable", arrival.isDurable)
            json.field("messages_ready", arrival.readyCount)
            json.field("consumers", arrival.consumerCount)
            if let refusal = arrival.refusal { json.field("refuses", refusal.rawValue) }
          }
        }
      }
      json.field("complete", !explanation.isCut)
    }
  }

  private static func write(_ stop: RouteExplanation.Stop, into json: inout JSONWriter) {
    json.field("name", stop.exchange.description)
    json.field("type", stop.type.description)
    json.field("internal", stop.isInternal)
    switch stop.ending {
    case .routed: json.field("ending", "routed")
    case .delayed(let milliseconds):
      json.field("ending", "delayed")
      json.field("delay", milliseconds)
    case .repeated: json.field("ending", "repeated")
    case .refused(let reason):
      json.field("ending", "refused")
      json.field("reason", reason)
    }
    json.field("goes_to", stop.choice.words)
    json.field("kept", stop.isKept)
    json.field("bindings_count", stop.bindingCount)
    json.key("bindings")
    json.array { json in
      for link in stop.links { json.object { write(link, into: &$0) } }
    }
    guard let alternate = stop.alternate else { return }
    json.key("alternate")
    json.object { json in
      json.field("exchange", alternate.exchange.description)
      json.field("exists", alternate.exists)
      json.field("taken", alternate.takes)
    }
  }

  private static func write(_ link: RouteExplanation.Link, into json: inout JSONWriter) {
    json.field("destination", link.destination.description)
    json.field("destination_type", link.isToExchange ? "exchange" : "queue")
    json.field("routing_key", link.key.description)
    json.key("arguments")
    FieldJSON.write(link.arguments, into: &json)
    json.field("fits", link.fits)
    if let filter = link.filter { json.field("filter", filter.rawValue) }
    json.field("taken", link.takes)
  }
}

extension RouteExplanation.Choice {
  fileprivate var words: String {
    switch self {
    case .all: "all"
    case .hash: "one_by_hash"
    case .chance: "one_by_chance"
    }
  }
}
