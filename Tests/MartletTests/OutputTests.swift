import JSON
import Testing

@testable import martlet

@Suite struct JSONWriterTests {
  @Test func nestingAndCommas() {
    var json = JSONWriter()
    json.object { json in
      json.field("a", "x")
      json.key("b")
      json.array { json in
        json.value(1)
        json.value(true)
        json.null()
        json.object { _ in }
        json.value(0.5)
        json.value(Double.infinity)
      }
      json.field("c", false)
    }
    #expect(json.text == #"{"a":"x","b":[1,true,null,{},0.5,"inf"],"c":false}"#)
  }

  @Test func textIsEscaped() {
    var json = JSONWriter()
    json.value("\"\\\n\r\t\u{1}\u{1F}\u{7F}ü😀")
    #expect(json.text == #""\"\\\n\r\t\u0001\u001f\u007fü😀""#)
  }
}

@Suite struct Base64Tests {
  @Test(arguments: [
    ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
    ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
  ])
  func theExamplesOfTheStandard(text: String, expected: String) {
    #expect(Base64.encode(Array(text.utf8)) == expected)
    #expect(Base64.decode(expected) == Array(text.utf8))
  }

  @Test(arguments: ["Z", "Zg=", "Zh==", "Zg==Zg==", "=g==", "Zm9=", "Z===", "Zm9*", "Zm 9v"])
  func otherTextsAreNone(text: String) {
    #expect(Base64.decode(text) == nil)
  }

  @Test func everyLetterIsUsed() {
    #expect(Base64.encode([0xFB, 0xFF, 0xBF]) == "+/+/")
  }
}

@Suite struct HumanWordsTests {
  @Test(arguments: [
    (0, "0 messages"), (1, "1 message"), (999, "999 messages"), (1000, "1,000 messages"),
    (1_234_567, "1,234,567 messages"),
  ])
  func counts(number: Int, expected: String) {
    #expect(HumanWords.count(number, "message") == expected)
  }

  @Test(arguments: [
    (0, "0.00 s"), (54, "0.05 s"), (999, "0.99 s"), (1000, "1.0 s"), (9999, "9.9 s"),
    (10_000, "10 s"), (3_600_000, "3,600 s"),
  ])
  func seconds(milliseconds: Int, expected: String) {
    #expect(HumanWords.seconds(.milliseconds(milliseconds)) == expected)
  }
}
