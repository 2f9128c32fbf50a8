import AMQP
import Base
import Testing

@testable import Filters

@Suite struct FilterTests {
  private static let headers: FieldTable = [
    "t": .bool(true), "f": .bool(false), "n": .void, "one": .int32(1), "two": .double(2),
    "half": .float(0.5), "s": .string("abc"), "x": .bytes(Array("abc".utf8)), "nan": .double(.nan),
    "list": .array([.int32(1)]), "map": .table(["a": .int32(1)]), "time": .timestamp(1_700_000_000),
    "money": .decimal(scale: 2, value: 150), "max": .int64(.max), "min": .int64(.min),
    "x-retries": .int8(-5), "say \"so\"": .uint8(255), "größe": .uint16(65_535), "u": .uint32(.max),
    "short": .int16(-1), "inf": .double(.infinity), "body": .string("header"),
    "s": .string("second"),
  ]

  private let sample = FilterSample(headers: Self.headers, body: "a timeout of 5s")

  // MARK: Values

  @Test(arguments: [
    "one = 1", "one = 1.0", "two = 2", "half = .5", "s = 'abc'", "x = 'abc'", "s = x",
    "time = 1700000000", "money = 1.5", "max = 9223372036854775807", "min = -9223372036854775808",
    "\"x-retries\" = -5", "\"say \"\"so\"\"\" = 255", "größe = 65535", "u = 4294967295",
    "short = -1",
    "t", "t = TRUE", "f = FALSE", "NOT f", "t <> f", "\"body\" = 'header'",
    "body = 'a timeout of 5s'", "body LIKE '%timeout%'", "exchange = 'events'",
    "routing_key = 'a.b'", "list IS NOT NULL", "map IS NOT NULL", "n IS NULL", "nan IS NULL",
    "absent IS NULL", "inf > max", "One IS NULL",
    // Numbers by value, not by the nearest approximation.
    "max < 9223372036854775808.0", "min = -9223372036854775808.0", "max > 9223372036854774784.0",
    "9007199254740993 <> 9007199254740992.0", "one < 1.5", "-1 > -1.5", "one > -inf",
    // Strings byte by byte.
    "s < 'abd'", "s > 'ab'", "s >= 'abc'", "s BETWEEN 'abb' AND 'abd'", "'B' < 'a'", "'' < s",
  ])
  func isTrue(_ text: String) throws { #expect(try sample.truth(text) == true) }

  @Test(arguments: [
    // Unlike types are never equal, nor different, nor ordered.
    "s = 5", "s <> 5", "s < 5", "s >= 5", "t = 1", "t <> 1", "one = 'x'", "one <> TRUE",
    "list = 1", "list <> 1", "list = list", "map = 'x'", "t < f", "t >= f", "t BETWEEN f AND t",
    "one = 2", "one > 1", "s = 'second'", "s = 'ABC'", "absent IS NOT NULL", "s IS NULL",
    "s IN (1, TRUE)", "list IN (1)", "s NOT BETWEEN 1 AND 2",
  ])
  func isFalse(_ text: String) throws { #expect(try sample.truth(text) == false) }

  @Test(arguments: [
    "absent", "absent = 1", "absent <> 1", "n = n", "1 < nan", "absent IN (1)",
    "absent NOT IN (1)", "absent BETWEEN 1 AND 2", "absent NOT BETWEEN 1 AND 2",
    "absent LIKE '%'", "absent NOT LIKE '%'", "absent + 1 = 1", "s + 1 = 1", "-s = 1", "+s = 1",
    "1 / 0 = 1", "1.0 / 0 = 1", "one / 0.0 = 1", "inf - inf = 0", "t * 1 = 1",
    "one LIKE '1'", "t NOT LIKE '%'", "list LIKE '%'", "absent = TRUE",
    "1 BETWEEN absent AND 2", "1 NOT BETWEEN absent AND 2", "p.type = 'x'", "p.priority > 4",
  ])
  func isUnknown(_ text: String) throws { #expect(try sample.truth(text) == nil) }

  @Test(arguments: ["s", "one", "list", "n", "absent"])
  func whatIsNoBooleanIsUnknownAsACondition(_ text: String) throws {
    #expect(try !sample.fits(text) && !sample.fits("NOT \(text)"))
    #expect(try sample.fits("(NOT \(text)) IS NULL AND (\(text) OR \(text)) IS NULL"))
  }

  @Test(arguments: [
    ("1 + 2 * 3", "7"), ("(1 + 2) * 3", "9"), ("7 - 2 - 1", "4"), ("7 / 2", "3"),
    ("-7 / 2", "-3"), ("7 / 2.0", "3.5"), ("8 / 2 / 2", "2"), ("one + two", "3"),
    ("half * 4", "2"), ("- one", "-1"), ("- - one", "1"), ("+two", "2"), ("-2 * -3", "6"),
    ("max + 1", "9223372036854775808.0"), ("max * 2", "18446744073709551616.0"),
    ("min - 1", "-9223372036854775808.0"), ("-min", "9223372036854775808.0"),
    ("min / -1", "9223372036854775808.0"), ("1 - -1", "2"), ("2 * 3 + 4", "10"),
  ])
  func arithmeticIs(_ text: String, _ value: String) throws {
    #expect(try sample.truth("\(text) = \(value)") == true)
  }

  @Test func unlikeTypesInRangesAndListsAreAsTheirComparisonsSay() throws {
    #expect(try sample.truth("s NOT IN (1)") == true)
    #expect(try sample.truth("s BETWEEN 1 AND 2") == false)
    #expect(try sample.truth("one IN ('1', 1.0)") == true)
    #expect(try sample.truth("one BETWEEN 1 AND 1.5") == true)
    #expect(try sample.truth("one NOT BETWEEN 0 AND absent") == nil)
    #expect(try sample.truth("one NOT BETWEEN 2 AND absent") == true)
    #expect(try sample.truth("one BETWEEN 2 AND absent") == false)
  }

  @Test func everyPropertyHasItsName() throws {
    var properties = BasicProperties()
    properties.contentType = "text/plain"
    properties.contentEncoding = "gzip"
    properties.headers = ["a": .int32(1)]
    properties.deliveryMode = 2
    properties.priority = 7
    properties.correlationID = "c"
    properties.replyTo = "r"
    properties.expiration = "60000"
    properties.messageID = "m"
    properties.timestamp = 1_700_000_000
    properties.type = "t"
    properties.userID = "guest"
    properties.appID = "app"
    properties.clusterID = ""
    let sample = FilterSample(properties)
    for text in [
      "p.content_type = 'text/plain'", "p.content_encoding = 'gzip'", "p.delivery_mode = 2",
      "properties.priority = 7", "p.correlation_id = 'c'", "p.reply_to = 'r'",
      "p.expiration = 60000", "p.message_id = 'm'", "p.timestamp = 1700000000", "p.type = 't'",
      "p.user_id = 'guest'", "p.app_id = 'app'", "p.cluster_id = ''", "a = 1",
    ] {
      #expect(try sample.fits(text), "\(text)")
    }
    let bare = FilterSample()
    for property in FilterProperty.allCases {
      #expect(try bare.fits("p.\(property.rawValue) IS NULL"))
    }
  }

  // MARK: Three values

  @Test(arguments: [true, false, nil] as [Bool?], [true, false, nil] as [Bool?])
  func conditionsHaveThreeValues(_ left: Bool?, _ right: Bool?) throws {
    let words: (Bool?) -> String = { $0.map { $0 ? "t" : "f" } ?? "absent" }
    let (a, b) = (words(left), words(right))
    let and = Self.or(left.map { !$0 }, right.map { !$0 }).map { !$0 }
    let or = Self.or(left, right)
    #expect(try sample.truth("\(a) AND \(b)") == and)
    #expect(try sample.truth("\(a) OR \(b)") == or)
    #expect(try sample.truth("NOT \(a)") == left.map { !$0 })
    // The same where both sides were worked out before.
    #expect(try sample.truth("(\(a) = TRUE) AND (\(b) = TRUE)") == and)
    #expect(try sample.truth("(\(a) AND \(b)) OR \(b)") == Self.or(and, right))
  }

  private static func or(_ left: Bool?, _ right: Bool?) -> Bool? {
    left == true || right == true ? true : left == nil || right == nil ? nil : false
  }

  @Test func wordsOfTheLanguageBindInTheirOrder() throws {
    #expect(try sample.truth("t OR t AND f") == true)
    #expect(try sample.truth("(t OR t) AND f") == false)
    #expect(try sample.truth("NOT t OR t") == true)
    #expect(try sample.truth("NOT (t OR t)") == false)
    #expect(try sample.truth("NOT one = 2 AND t") == true)
    #expect(try sample.truth("one BETWEEN 0 AND 2 AND f") == false)
    #expect(try sample.truth("one + 1 = two AND 2 - 1 = one") == true)
  }

  // MARK: Bounds

  @Test func ofTheBodyOnlyTheBeginningIsLookedAt() throws {
    let body = [UInt8](repeating: 0x61, count: 65_535) + Array("bc".utf8)
    let sample = FilterSample(body: body)
    #expect(try sample.fits("body LIKE '%b'"))
    #expect(try !sample.fits("body LIKE '%c%'"))
  }

  @Test func whatAFilterCostsIsCounted() throws {
    let large = FilterSample(body: [UInt8](repeating: 0x61, count: 1 << 20))
    let search = try Filter("body LIKE '%b%'")
    #expect(large.fits(search).steps == 1 + 65_536 / 256)
    let many = FieldTable(
      (0..<1000).map { FieldTable.Entry(name: Name("h\($0)"), value: .int32(1)) })
    let last = try Filter("last = 1")
    #expect(FilterSample(headers: many).fits(last).steps == 1 + 1000 / 4)
    // All headers of a filter are found at once, and no more is looked at than that needs.
    let three = try Filter("h1 = 1 AND h2 = 1 AND h0 = 1")
    #expect(FilterSample(headers: many).fits(three).steps == 1 + 11 / 8)
    #expect(FilterSample().fits(try Filter("1 = 1")).steps == 1)
  }

  @Test func namesThatAreLongerOrShorterAreOthers() throws {
    let sample = FilterSample(headers: ["ab": .int32(1), "a": .int32(2), "abc": .int32(3)])
    #expect(try sample.fits("a = 2 AND ab = 1 AND abc = 3 AND abcd IS NULL"))
  }
}
