import AMQP
import Arbitrary
import Base

/// A header of a message, or what a binding asks of one.
struct Header: Hashable {
  enum Value: Hashable {
    case number(Int)
    case text(String)
    /// Asks only that the header is there.
    case present
  }

  let name: String
  let value: Value

  static let names = ["h1", "h2", "h3", "x-h"]

  /// Numbers are compared by value: `width` is free.
  func entry(width: Int) -> FieldTable.Entry {
    let field: FieldValue =
      switch value {
      case .number(let number):
        switch width % 3 {
        case 0: .int32(Int32(number))
        case 1: .int64(Int64(number))
        default: .double(Double(number))
        }
      case .text(let text): .string(text)
      case .present: .void
      }
    return FieldTable.Entry(name: Name(name), value: field)
  }

  /// Some headers of a message, each name at most once.
  static func some(_ random: inout SeededGenerator) -> [Header] {
    names.compactMap { name in
      guard random.oneIn(2) else { return nil }
      return Header(name: name, value: random.choose([.number(1), .number(2), .text("x")]))
    }
  }
}

/// What a binding of a headers exchange asks of a message.
struct HeadersCondition: Hashable {
  enum Match: String, CaseIterable {
    case all, any
    case allWithPrivate = "all-with-x"
    case anyWithPrivate = "any-with-x"
  }

  /// nil is `all`, too.
  let match: Match?
  let wanted: [Header]

  static func some(_ random: inout SeededGenerator) -> HeadersCondition {
    let wanted = Header.names.compactMap { name -> Header? in
      guard random.oneIn(2) else { return nil }
      return Header(
        name: name, value: random.choose([.number(1), .number(2), .text("x"), .present]))
    }
    return HeadersCondition(
      match: random.oneIn(4) ? nil : random.choose(Match.allCases), wanted: wanted)
  }

  var arguments: FieldTable {
    var entries = wanted.enumerated().map { $0.element.entry(width: $0.offset) }
    if let match {
      entries.append(FieldTable.Entry(name: "x-match", value: .string(match.rawValue)))
    }
    return FieldTable(entries)
  }

  func holds(_ headers: [Header]) -> Bool {
    let isPrivate = match == .allWithPrivate || match == .anyWithPrivate
    let counted = wanted.filter { isPrivate || !$0.name.hasPrefix("x-") }
    let fits = { (wanted: Header) in
      headers.contains {
        $0.name == wanted.name && (wanted.value == .present || wanted.value == $0.value)
      }
    }
    return match == .any || match == .anyWithPrivate
      ? counted.contains(where: fits) : counted.allSatisfy(fits)
  }
}
