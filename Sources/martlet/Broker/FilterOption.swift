import Client

/// `--filter`: the condition of a binding, or of a reader of a stream.
enum FilterOption {
  static let option = Option.optional(
    "filter", "CONDITION", as: .text,
    "Take only messages of which this is true, such as \"level = 'error' AND retries > 3\": "
      + "over headers, properties (p.type) and body, as Specs/Filters.md describes it.")

  /// Arguments with the filter among them.
  static func adding(
    to arguments: FieldTable = FieldTable(), _ invocation: Invocation
  ) throws(Failure) -> FieldTable {
    guard let text = invocation[option] else { return arguments }
    guard arguments["x-filter"] == nil else {
      throw Failure("--filter and --arg x-filter exclude each other", code: .usage)
    }
    var arguments = arguments
    arguments.entries.append(.init(name: "x-filter", value: .string(text)))
    return arguments
  }
}
