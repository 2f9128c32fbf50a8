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
    ("a=", "a", .string("")),
    ("a=b=c", "a", .string("b=c")),
    ("a=true", "a", .bool(true)),
    ("a:string=true", "a", .string("true")),
    ("a:long=1", "a", .int64(1)),
    ("a:double=1", "a", .double(1)),
    ("a:bool=off", "a", .bool(false)),
    ("a:timestamp=1700000000", "a", .timestamp(1_700_000_000)),
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
    ("a:null=x", #""a:null=x": "x" is not of type null"#),
  ])
  func mistakesAreNamed(word: String, text: String) {
    #expect(throws: UsageError(text)) { try FieldWord(word) }
  }
}
