import Client
import Testing

@testable import martlet

@Suite struct FieldWordTests {
  @Test(arguments: [
    ("a=1", "a", FieldValue.int32(1)),
    ("a=-5", "a", .int32(-5)),
    ("a=5000000000", "a", .int64(5_000_000_000)),
    ("a=1.5", "a", .string("1.5")),
    ("a=+1", "a", .string("+1")),
    ("zip=00123", "zip", .string("00123")),
    ("a=0", "a", .int32(0)),
    ("a=-0", "a", .string("-0")),
    ("a=-07", "a", .string("-07")),
    ("a=1e3", "a", .string("1e3")),
    ("a=9223372036854775807", "a", .int64(.max)),
    ("a=9223372036854775808", "a", .string("9223372036854775808")),
    ("a:int=00123", "a", .int32(123)),
    ("a=", "a", .string("")),
    ("a=b=c", "a", .string("b=c")),
    ("a=true", "a", .bool(true)),
    ("a:string=true", "a", .string("true")),
    ("a:long=1", "a", .int64(1)),
    ("a:double=1", "a", .double(1)),
    ("a:bool=off", "a", .bool(false)),
    ("a:timestamp=1700000000", "a", .timestamp(1_700_000_000)),
    ("a:timestamp=2023-11-14T22:13:20Z", "a", .timestamp(1_700_000_000)),
    ("a:list=x,,y", "a", .array([.string("x"), .string(""), .string("y")])),
    ("a:list=", "a", .array([])),
    ("a:null=", "a", .void),
    ("urn:x:string=1", "urn:x", .string("1")),
    ("x-max-length:int=10", "x-max-length", .int32(10)),
  ])
  func wordsBecomeValues(word: String, name: Name, value: FieldValue) throws {
    let field = try FieldWord(word)
    #expect(field.name == name)
    #expect(field.value == value)
  }

  @Test(arguments: [
    ("a", #""a" has no "="; write NAME=VALUE or NAME:TYPE=VALUE"#),
    ("=1", #""=1": the name must have 1 to 255 bytes"#),
    ("a:itn=1", #""a:itn=1": there is no type "itn"; did you mean "int"?"#),
    (
      "urn:x=1",
      #""urn:x=1": there is no type "x"; there are "#
        + "string, int, long, double, bool, timestamp, list, null"
    ),
    ("a:int=x", #""a:int=x": "x" is not of type int"#),
    ("a:timestamp=today", #""a:timestamp=today": "today" is not of type timestamp"#),
    ("a:null=x", #""a:null=x": "x" is not of type null"#),
  ])
  func mistakesAreNamed(word: String, text: String) {
    #expect(throws: UsageError(text)) { try FieldWord(word) }
  }
}

@Suite struct DateWordTests {
  @Test(arguments: [
    ("1970-01-01T00:00:00Z", 0), ("2023-11-14T22:13:20Z", 1_700_000_000),
    ("2023-11-14t22:13:20.999z", 1_700_000_000), ("2023-11-14 22:13:20Z", 1_700_000_000),
    ("2023-11-15T00:13:20+02:00", 1_700_000_000), ("2023-11-14T16:43:20-05:30", 1_700_000_000),
    ("2000-02-29T12:00:00Z", 951_825_600), ("2100-03-01T00:00:00Z", 4_107_542_400),
    ("9999-12-31T23:59:59Z", 253_402_300_799), ("2016-12-31T23:59:60Z", 1_483_228_800),
  ])
  func datesAreSeconds(text: String, seconds: UInt64) {
    #expect(DateWord.seconds(text) == seconds)
  }

  @Test(arguments: [
    "", "2023", "2023-11-14", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z",
    "2023-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2023-11-31T00:00:00Z",
    "2023-11-14T24:00:00Z", "2023-11-14T22:60:20Z", "2023-11-14T22:13:61Z",
    "2023-11-14T22:13:20.Z", "2023-11-14T22:13:20+2:00", "2023-11-14T22:13:20+0200",
    "2023-11-14T22:13:20+24:00", "1969-12-31T23:59:59Z", "2023-11-14T22:13:20Zx",
    "+023-11-14T22:13:20Z",
  ])
  func otherWordsAreNone(text: String) {
    #expect(DateWord.seconds(text) == nil)
  }
}
