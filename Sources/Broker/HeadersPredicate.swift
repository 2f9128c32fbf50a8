import AMQP
import Base

/// What a binding of a headers exchange asks of a message's headers. A condition without a value asks
/// only that the header is there; numbers are compared by value, whatever their width.
struct HeadersPredicate: Equatable {
  private(set) var requiresAll = true
  private(set) var conditions: [FieldTable.Entry] = []

  init(_ arguments: FieldTable) throws(BrokerError) {
    var includesPrivate = false
    if let match = arguments["x-match"] {
      switch match.text {
      case "all": break
      case "any": requiresAll = false
      case "all-with-x": includesPrivate = true
      case "any-with-x":
        requiresAll = false
        includesPrivate = true
      default:
        throw .refusedArgument(
          "x-match", of: .binding,
          reason: "expected all, any, all-with-x or any-with-x, got "
            + (match.text ?? match.typeName))
      }
    }
    // Of a name that stands twice the first value counts, as everywhere.
    var names: Set<Name> = ["x-match", "x-filter"]
    conditions = arguments.entries.filter { entry in
      names.insert(entry.name).inserted && (includesPrivate || !entry.name.hasPrefix("x-"))
    }
  }
}
