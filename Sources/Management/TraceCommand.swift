import Base
import Broker
import JSON

/// `{"command":"trace","on":true}`: begins to copy messages to the exchange for traces, or ends it. Without `on` it
/// changes nothing, and says whether it is done.
enum TraceCommand {
  static func run(_ request: ManagementRequest, _ json: JSONValue) throws(RequestProblem) {
    switch json.member("on") {
    case nil: break
    case .bool(let isOn)?: request.vhost.trace(isOn)
    case .null?, .number?, .string?, .array?, .object?:
      throw RequestProblem(text: #""on" is neither true nor false"#)
    }
    var answer = JSONWriter()
    answer.object { json in
      json.field("vhost", request.vhost.name.description)
      json.field("traced", request.vhost.isTraced)
    }
    request.answer(answer.bytes)
  }
}
