import AMQP
import Base
import Filters

extension Filter {
  private static let argument: Name = "x-filter"

  /// The condition among the arguments of a binding or of a consumer; nil if there is none.
  static func wanted(
    by arguments: FieldTable, of holder: BrokerError.ArgumentHolder
  ) throws(BrokerError) -> Filter? {
    guard let value = arguments[argument] else { return nil }
    guard case .string(let text) = value else {
      throw .refusedArgument(
        argument, of: holder, reason: "expected a string, got \(value.typeName)")
    }
    do throws(FilterError) {
      return try Filter(text)
    } catch {
      throw .refusedArgument(argument, of: holder, reason: error.reason)
    }
  }
}
