import AMQP
import Base
import Testing

@testable import Filters

@Suite struct FilterCompilerTests {
  @Test(arguments: [
    "level = 'error' AND retries > 3 AND body LIKE '%timeout%'",
    "a", "NOT a", "not NOT a", "TRUE", "a IS NULL", "a is not null", "(a)", "((a = 1))",
    "a = 1", "a<>1", "a<=1", "a >= .5", "a < 7.", "a > -57.9E2", "a = 1e3", "a = +62",
    "a = -9223372036854775808", "a = 9223372036854775807", "a = - -1", "a = -b", "a = +b",
    "a BETWEEN 1 AND 2 AND b", "a NOT BETWEEN 'x' AND 'y'", "a IN ('x')",
    "a NOT IN (1, -2, +3, 4.5, TRUE, 'x')", "a LIKE 'x%' ESCAPE '!'", "a NOT LIKE '_'",
    "a LIKE '!%!_!!' ESCAPE '!'", "a LIKE 'ä%é%' ESCAPE 'ä'", "\"x-retries\" = 1",
    "\"say \"\"so\"\"\" IS NULL", "\"and\" = \"body\"", "p.type = 'x'",
    "properties . correlation_id = 'x'", "P = 1", "$a = _b", "größe > 1", "body = exchange",
    "routing_key LIKE 'a.%'", "a + 1 * 2 / 3 - 4 = 5", "(a + 1) * 2 = 5", "(a = 1) = (b = 1)",
    "a = 'it''s'", "a=1\n\tAND\r\nb=2", "a OR b AND c OR d", "p.priority > 4 OR p.expiration < 5",
  ])
  func whatIsRightIsCompiled(_ text: String) throws {
    #expect(throws: Never.self) { try Filter(text) }
  }

  private static let mistakes: [(String, Int, String)] = [
    ("", 1, "expected a value, got the end"),
    ("   ", 4, "expected a value, got the end"),
    ("a =", 4, "expected a value, got the end"),
    ("level = )", 9, "expected a value, got ')'"),
    ("größe = )", 9, "expected a value, got ')'"),
    ("(a = 1", 7, "expected an operator or ')', got the end"),
    ("a = 1)", 6, "expected an operator or the end, got ')'"),
    ("a = 1 = 1", 7, "expected an operator or the end, got '='"),
    ("a b", 3, "expected an operator or the end, got 'b'"),
    ("a AND", 6, "expected a value, got the end"),
    ("a AND AND b", 7, "expected a value, got 'AND'"),
    ("a NOT b", 7, "expected BETWEEN, IN or LIKE behind NOT, got 'b'"),
    ("a IS 5", 6, "expected NULL or NOT NULL, got '5'"),
    ("a IS NOT 5", 10, "expected NULL, got '5'"),
    ("a = 'x", 5, "the string that begins here has no end"),
    ("\"x = 1", 1, "the name that begins here has no end"),
    ("a != 1", 3, "unequal is written <>"),
    ("a ; b", 3, "';' means nothing here"),
    ("a = \u{1}", 5, "byte 1 means nothing here"),
    ("5", 1, "expected a condition, got a number"),
    ("'x'", 1, "expected a condition, got a string"),
    ("a + 1", 1, "expected a condition, got a number"),
    ("a AND 5", 7, "expected a condition, got a number"),
    ("'x' OR a", 1, "expected a condition, got a string"),
    ("NOT 5", 5, "expected a condition, got a number"),
    ("5 = 'x'", 3, "a number is never like a string"),
    ("p.type > 5", 8, "a string is never like a number"),
    ("a = 'x' + 1", 5, "expected a number, got a string"),
    ("a = 1 + 'x'", 9, "expected a number, got a string"),
    ("a = -'x'", 6, "expected a number, got a string"),
    ("a = 1 * (b = 2)", 9, "expected a number, got a condition"),
    ("(a = 1) < TRUE", 9, "conditions have no order"),
    ("a BETWEEN TRUE AND b", 3, "conditions have no order"),
    ("a BETWEEN 1 OR 2", 13, "expected AND, got 'OR'"),
    ("1 BETWEEN 'a' AND 'b'", 3, "a number is never like a string"),
    ("a IN 1", 6, "expected '(', got '1'"),
    ("a IN ()", 7, "expected a literal, got ')'"),
    ("a IN (1,)", 9, "expected a literal, got ')'"),
    ("a IN (b)", 7, "expected a literal, got 'b'"),
    ("a IN (-'x')", 8, "expected a literal, got ''x''"),
    ("a IN (1 2)", 9, "expected ',' or ')', got '2'"),
    ("5 LIKE 'x'", 1, "expected a string, got a number"),
    ("a LIKE b", 8, "expected a pattern, as a string, got 'b'"),
    ("a LIKE 'x' ESCAPE '%'", 19, "expected one character, not % nor _, as a string, got ''%''"),
    ("a LIKE 'x' ESCAPE ''", 19, "expected one character, not % nor _, as a string, got ''''"),
    ("a LIKE 'x' ESCAPE 'ab'", 19, "expected one character, not % nor _, as a string, got ''ab''"),
    (
      "a LIKE 'x!y' ESCAPE '!'", 8,
      "in the pattern, %, _ or the escape character must follow the escape character"
    ),
    (
      "a LIKE 'x!' ESCAPE '!'", 8,
      "in the pattern, %, _ or the escape character must follow the escape character"
    ),
    ("a = 9223372036854775808", 5, "the number needs more than 64 bits"),
    ("a = 99999999999999999999", 5, "the number needs more than 64 bits"),
    ("a = -9223372036854775809", 6, "the number needs more than 64 bits"),
    ("a = 1e999", 5, "the number is too large"),
    ("a = 1e", 6, "expected digits behind the exponent's E"),
    ("a = 0x1F", 6, "a name cannot begin right behind a number"),
    (
      "order.region = 1", 1,
      "only p. and properties. stand before a name; a header with dots goes in double quotes"
    ),
    (
      "p.foo = 1", 3,
      "expected a property: content_type, content_encoding, delivery_mode, priority, "
        + "correlation_id, reply_to, expiration, message_id, timestamp, type, user_id, app_id, "
        + "cluster_id"
    ),
  ]

  @Test(arguments: mistakes)
  func whatIsWrongIsToldWithItsColumn(_ text: String, _ column: Int, _ problem: String) {
    #expect(throws: FilterError(column: column, problem: problem)) { try Filter(text) }
  }

  @Test func bytesThatAreNoTextAreTold() {
    #expect(throws: FilterError(column: 3, problem: "the filter is not UTF-8 here")) {
      try Filter([0x61, 0x3D, 0xFF])
    }
  }

  // MARK: Limits

  private static func times(_ count: Int, _ text: String) -> String {
    String(repeating: text, count: count)
  }

  private static func names(_ count: Int) -> String {
    (0..<count).map { "h\($0)" }.joined(separator: " OR ")
  }

  private static let tooLarge: [(String, Int, String)] = [
    ("a = '" + times(4091, "x") + "'", 1, "the filter has 4097 bytes, more than 4096"),
    (times(33, "(") + "a" + times(33, ")"), 34, "the filter is nested deeper than 32"),
    (times(33, "NOT ") + "a", 133, "the filter is nested deeper than 32"),
    ("a = " + times(33, "- ") + "b", 71, "the filter is nested deeper than 32"),
    ("a = " + times(32, "1+(") + "1" + times(32, ")"), 98, "the filter is nested deeper than 32"),
    (names(33), 215, "the filter names more than 32 headers"),
    (times(90, "a OR ") + "a", 431, "the filter has more than 256 operations"),
    (
      "a IN (" + (0..<300).map { "\($0)" }.joined(separator: ",") + ")", 917,
      "the filter has more than 256 operations"
    ),
    (
      "a LIKE '%x" + times(62, "y") + "_z%'", 8,
      "the pattern has more than 64 bytes with a _ between two %"
    ),
    ("\"" + times(256, "n") + "\" IS NULL", 1, "a header's name has at most 255 bytes"),
  ]

  @Test(arguments: tooLarge)
  func whatIsTooLargeIsRefused(_ text: String, _ column: Int, _ problem: String) {
    #expect(throws: FilterError(column: column, problem: problem)) { try Filter(text) }
  }

  private static let atALimit: [String] = [
    "a = '" + times(4090, "x") + "'",
    times(32, "(") + "a" + times(32, ")"),
    times(32, "NOT ") + "a",
    names(32),
    times(84, "a OR ") + "a",
    "a LIKE '%x" + times(61, "y") + "_z%'",
    "a LIKE '%_" + times(1000, "y") + "__%'",
    "\"" + times(255, "n") + "\" IS NULL",
  ]

  @Test(arguments: atALimit)
  func whatIsAtALimitIsCompiled(_ text: String) {
    #expect(throws: Never.self) { try Filter(text) }
  }

  @Test func theMemoryOfAFilterIsBounded() throws {
    let filter = try Filter("a LIKE '" + Self.times(2000, "%a") + "'")
    #expect(filter.bytes < 256 << 10)
  }
}
