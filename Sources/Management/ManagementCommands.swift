import AMQP
import Base
import Broker
import JSON

/// Why a request is not done, in words for who made it.
struct RequestProblem: Error {
  let text: String
}

/// Answers requests: JSON with the name of a command, and JSON with what came of it, or with an `error`.
public final class ManagementCommands: ManagementResponder {
  private typealias Command =
    @Sendable (ManagementRequest, JSONValue) throws(RequestProblem) -> Void

  /// Each command there is. It answers, now or later, or throws what is wrong with the request.
  private static let commands: [(name: String, run: Command)] = [
    ("route", RouteCommand.run),
    ("delayed-list", DelayedCommands.list),
    ("delayed-cancel", DelayedCommands.cancel),
    ("stream-list", StreamCommands.list),
    ("stream-info", StreamCommands.info),
    ("stream-groups", StreamCommands.groups),
    ("stream-reset", StreamCommands.reset),
    ("stream-group-delete", StreamCommands.deleteGroup),
    ("stream-add-partitions", StreamCommands.addPartitions),
    ("trace", TraceCommand.run),
  ]

  public init() {}

  public func respond(to request: ManagementRequest) {
    do throws(RequestProblem) {
      let (name, json) = try Self.parse(request.body)
      guard let command = Self.commands.first(where: { $0.name == name }) else {
        let known = Self.commands.map(\.name)
        throw RequestProblem(
          text: #"there is no command "\#(name)""# + Spelling.suggestion(for: name, among: known))
      }
      try command.run(request, json)
    } catch {
      request.answer(Self.error(error.text))
    }
  }

  private static func parse(
    _ body: [UInt8]
  ) throws(RequestProblem) -> (command: String, JSONValue) {
    let json: JSONValue
    do throws(JSONValue.Problem) {
      json = try JSONValue(body)
    } catch {
      throw RequestProblem(text: "the request is not JSON: \(error.text)")
    }
    guard case .object(let members) = json,
      case .string(let name)? = members.first(where: { $0.name == "command" })?.value
    else { throw RequestProblem(text: #"a request is an object with a "command""#) }
    return (name, json)
  }

  static func error(_ text: String) -> [UInt8] {
    var json = JSONWriter()
    json.object { $0.field("error", text) }
    return json.bytes
  }
}

extension JSONValue {
  /// The value of that name in an object.
  package func member(_ name: String) -> JSONValue? {
    guard case .object(let members) = self else { return nil }
    return members.first { $0.name == name }?.value
  }
}
