import AMQP
import Arbitrary
import Base
import JSON
import Testing

@testable import martlet

/// What `subscribe --format json` prints is what `publish --format json` takes.
@Suite struct MessageJSONTests {
  private func line(of properties: BasicProperties, _ body: String = #""body":"""#) -> String {
    var json = JSONWriter()
    json.object { MessageJSON.write(properties, into: &$0) }
    return String(json.text.dropLast()) + ",\(body)}"
  }

  private func read(_ line: String) throws -> MessageJSON { try MessageJSON(Array(line.utf8)) }

  @Test(arguments: Seed.some(300))
  func allPropertiesAndHeadersRoundTrip(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var properties = random.properties(PropertyFlags(rawValue: random.integer()))
    if properties.headers?.entries.isEmpty == true { properties.headers = nil }
    #expect(try read(line(of: properties)).properties == properties)
  }

  @Test func everyTypeOfHeaderHasItsPlainValueAndItsType() throws {
    var properties = BasicProperties()
    properties.headers = [
      "int": .int32(-7), "long": .int64(7), "far": .int64(1 << 40), "at": .timestamp(1_700_000_000),
      "price": .decimal(scale: 2, value: 1234), "half": .float(0.5), "third": .double(0.25),
      "endless": .double(.infinity), "raw": .bytes([0, 255]), "word": .bytes(Array("x".utf8)),
      "odd": .string([0xFF]), "none": .void, "yes": .bool(true),
      "x-death": .array([.table(["count": .int64(2), "queue": .string("q")]), .void]),
    ]
    let line = line(of: properties)
    let expected = [
      #""int":-7"#, #""long":7"#, #""price":1234e-2"#, #""half":0.5"#, #""endless":"inf""#,
      #""raw":"AP8=""#, #""word":"x""#, #""x-death":[{"count":2,"queue":"q"},null]"#,
      #""header_types":{"long":"int64","at":"timestamp","price":"decimal","half":"float""#
        + #","endless":"double","raw":"bytes_base64","word":"bytes","odd":"string_base64""#
        + #","x-death":[{"count":"int64"},null]}"#,
    ]
    for part in expected { #expect(line.contains(part), "\(part) in \(line)") }
    #expect(try read(line).properties == properties)
  }

  @Test func decimalsMayHaveBeenRewritten() throws {
    for word in ["12.34", "1234e-2", "123.4E-1", "0.1234e2"] {
      let message = try read(
        #"{"headers":{"p":\#(word)},"header_types":{"p":"decimal"},"body":""}"#)
      guard case .decimal(let scale, let value)? = message.properties.headers?["p"] else {
        return #expect(Bool(false), "\(word) is no decimal")
      }
      #expect(value == 1234 && scale == 2)
    }
  }

  @Test func bodiesAreTextOrBase64() throws {
    let message = try read(
      #" {"key": "k\u00e9\ud83d\ude00", "exchange_base64": "/w==", "body_base64": "AP8=", "#
        + #""redelivered": true, "remaining": 3} "#)
    #expect(message.key == "k\u{e9}\u{1F600}")
    #expect(message.exchange == Name([0xFF]))
    #expect(message.body == [0, 255])
    #expect(message.properties == BasicProperties())
    #expect(try read(#"{"body":"\n\u0000"}"#).body == [10, 0])
  }

  @Test(arguments: [
    ("", "a value is missing at byte 1"),
    ("[]", "a message is an object, as subscribe --format json prints it"),
    ("{}", #"the "body" is missing"#),
    (#"{"body":1}"#, #""body" is text, not a number"#),
    (#"{"body":"","body_base64":""}"#, "there are two bodies"),
    (#"{"body_base64":"x"}"#, #""body_base64" is not base64"#),
    (#"{"boddy":"x"}"#, #"there is no field "boddy"; did you mean "body"?"#),
    (
      #"{"body":"","properties":{"contenttype":"x"}}"#,
      #"there is no field "contenttype"; did you mean "content_type"?"#
    ),
    (
      #"{"body":"","properties":{"priority":256}}"#,
      #""priority" is not a whole number from 0 to 255"#
    ),
    (#"{"body":"","headers":[]}"#, "headers are an object, not an array"),
    (
      #"{"body":"","headers":{"a":"x"},"header_types":{"a":"int8"}}"#,
      #"header "a" is not what header_types says"#
    ),
    (#"{"body":"}"#, "a text has no end at byte 11"),
    (#"{"body":"\ud800"}"#, "half a character at byte 16"),
    (#"{"body":01}"#, "a comma or a brace is missing at byte 10"),
    (#"{"body":"" } x"#, "something stands behind the value at byte 14"),
  ])
  func mistakesAreNamed(line: String, text: String) {
    #expect(throws: JSONValue.Problem(text: text)) { try read(line) }
  }

  @Test func nestingHasAnEnd() {
    let deep = String(repeating: "[", count: 100_000)
    #expect(throws: JSONValue.Problem(text: "it is nested too deeply at byte 101")) {
      try JSONValue(Array(deep.utf8))
    }
  }
}
