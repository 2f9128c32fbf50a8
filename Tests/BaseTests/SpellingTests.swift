import Testing

@testable import Base

@Suite struct SpellingTests {
  @Test(arguments: [
    ("lisen", "listen"), ("isten", "listen"), ("litsen", "listen"), ("frame", "frame-max"),
    ("loopback", nil), ("xyz", nil),
  ])
  func theNearestWordIsFound(word: String, expected: String?) {
    let words = ["listen", "frame-max", "channel-max", "user"]
    #expect(Spelling.nearest(to: word, among: words) == expected)
  }
}
