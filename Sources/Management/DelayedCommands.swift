import Base
import Broker
import JSON

/// `delayed-list` and `delayed-cancel`: the messages that wait for their time.
enum DelayedCommands {
  static func list(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["exchange", "routing_key", "limit", "cursor"])
    let selection = try selection(fields)
    let limit = try fields.count("limit", max: BrokerLimits.delayedPageMax)
    let cursor = try fields.cursor(reading: DelayedCursor.init(_:)) ?? DelayedCursor()
    request.vhost.listDelayed(
      selection, from: cursor, atMost: limit ?? BrokerLimits.delayedPageMax, for: request.peer
    ) { page in
      var json = JSONWriter()
      json.object { write(page, into: &$0) }
      request.answer(json.bytes)
    }
  }

  static func cancel(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    let fields = try RequestFields(json, known: ["exchange", "routing_key", "ids", "all"])
    var selection = try selection(fields)
    selection.ids = try ids(fields)
    let isForAll = try fields.flag("all")
    guard isForAll == selection.isAll else {
      throw RequestProblem(
        text: selection.isAll
          ? #"say which by "ids", "exchange" or "routing_key", or "all": true"#
          : #""all" excludes "ids", "exchange" and "routing_key""#)
    }
    request.vhost.cancelDelayed(selection, for: request.peer) { result in
      guard result.failure == nil else {
        return request.answer(
          ManagementCommands.error("the log has failed: \(result.failure ?? "")"))
      }
      var json = JSONWriter()
      json.object { write(result, into: &$0) }
      request.answer(json.bytes)
    }
  }

  private static func selection(_ fields: RequestFields) throws(RequestProblem) -> DelayedSelection
  {
    var selection = DelayedSelection()
    selection.exchange = try fields.name("exchange")
    selection.key = try fields.name("routing_key")
    return selection
  }

  private static func ids(_ fields: RequestFields) throws(RequestProblem) -> Set<DelayedID>? {
    guard let texts = try fields.texts("ids") else { return nil }
    var ids: Set<DelayedID> = []
    for text in texts {
      guard let id = DelayedID(text) else {
        throw RequestProblem(text: #""\#(text)" is no id of a message that waits"#)
      }
      ids.insert(id)
    }
    return ids
  }

  private static func write(_ page: DelayedPage, into json: inout JSONWriter) {
    json.key("messages")
    json.array { json in
      for message in page.messages {
        json.object { json in
          json.field("id", message.id.text)
          json.field("due", message.id.due)
          json.field("exchange", message.exchange.description)
          json.field("routing_key", message.key.description)
          json.field("bytes", message.bodySize)
          json.field("persistent", message.isPersistent)
        }
      }
    }
    if let next = page.next { json.field("next", next.text) }
    json.field("waiting", page.waitingCount)
    json.field("complete", !page.isIncomplete)
  }

  private static func write(_ result: DelayedCancellation, into json: inout JSONWriter) {
    json.field("cancelled", result.count)
    json.key("not_found")
    json.array { json in
      for id in result.missing.map(\.text).sorted() { json.value(id) }
    }
    json.field("complete", !result.isIncomplete)
  }
}
