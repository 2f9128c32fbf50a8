import Arbitrary
import Base
import Testing

@testable import Filters

@Suite struct LikePatternTests {
  private func matches(_ subject: [UInt8], _ pattern: String, escape: String? = nil) throws -> Bool
  {
    var pool: [UInt8] = []
    let compiled = try LikePattern(
      Array(pattern.utf8), escape: escape.map { Array($0.utf8) }, pool: &pool)
    return compiled.matches(subject.span.bytes, pool: pool.span.bytes)
  }

  @Test(arguments: [
    ("123", "12%3", true), ("12993", "12%3", true), ("1234", "12%3", false),
    ("lose", "l_se", true), ("loose", "l_se", false), ("", "", true), ("", "%", true),
    ("", "_", false), ("a", "", false), ("abc", "%", true), ("abc", "%%%", true),
    ("abc", "___", true), ("abc", "____", false), ("abc", "_%_", true), ("a", "_%_", false),
    ("abc", "a%c", true), ("ac", "a%c", true), ("a", "a%a", false), ("aa", "a%a", true),
    ("aXbXc", "%X%X%", true), ("aXbc", "%X%X%", false), ("äöü", "___", true),
    ("äöü", "%ö%", true), ("äöü", "ä_ü", true), ("äöü", "_ö%", true), ("a☃b", "a_b", true),
    ("mississippi", "%iss%ppi", true), ("mississippi", "%is_is%", true),
    ("mississippi", "m%s_s%i", true), ("aab", "%ab", true), ("abab", "%ab", true),
    ("xayb", "%a_b%", true), ("xaab", "%a_b%", true), ("a+b", "a+b", true), ("axb", "a.b", false),
    ("A", "a", false), ("a%", "a%", true),
  ])
  func patternsMatch(_ subject: String, _ pattern: String, _ fits: Bool) throws {
    #expect(try matches(Array(subject.utf8), pattern) == fits)
  }

  @Test func whatIsEscapedStandsForItself() throws {
    #expect(try matches(Array("_foo".utf8), "\\_%", escape: "\\"))
    #expect(try !matches(Array("bar".utf8), "\\_%", escape: "\\"))
    #expect(try matches(Array("50%!".utf8), "50!%!!", escape: "!"))
    #expect(try !matches(Array("505!".utf8), "50!%!!", escape: "!"))
    #expect(try matches(Array("a%b".utf8), "_ä%_", escape: "ä"))
    #expect(try !matches(Array("axb".utf8), "_ä%_", escape: "ä"))
  }

  // MARK: By definition

  /// Characters: a byte with the bytes 10xxxxxx behind it.
  private static func characters(_ bytes: [UInt8]) -> [[UInt8]] {
    var all: [[UInt8]] = []
    for byte in bytes {
      if byte & 0xC0 == 0x80, !all.isEmpty {
        all[all.count - 1].append(byte)
      } else {
        all.append([byte])
      }
    }
    return all
  }

  /// Whether each beginning of the subject fits the pattern so far.
  private static func naive(_ subject: [UInt8], _ pattern: String) -> Bool {
    let subject = characters(subject)
    var fits = [true] + Array(repeating: false, count: subject.count)
    for character in characters(Array(pattern.utf8)) {
      var next = Array(repeating: false, count: fits.count)
      for index in fits.indices {
        switch character {
        case [UInt8(ascii: "%")]: next[index] = fits[...index].contains(true)
        case [UInt8(ascii: "_")]: next[index] = index > 0 && fits[index - 1]
        default: next[index] = index > 0 && fits[index - 1] && subject[index - 1] == character
        }
      }
      fits = next
    }
    return fits.last ?? false
  }

  @Test(arguments: Seed.some(8))
  func anyPatternMatchesWhatTheDefinitionSays(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    var matched = 0
    for round in 0..<4000 {
      let alphabet = random.choose([["a", "b", "%", "_"], ["a", "%"], ["a", "ä", "é", "%", "_"]])
      let pattern = (0..<random.number(0...9)).map { _ in random.choose(alphabet) }.joined()
      // Bytes that are no UTF-8, among them.
      let pieces: [[UInt8]] = [
        [0x61], [0x61], [0x62], [0xC3, 0xA4], [0xC3, 0xA9], [0x80], [0xC3],
      ]
      let few = random.flag() ? Array(pieces.prefix(2)) : pieces
      let subject = (0..<random.number(0...12)).flatMap { _ in random.choose(few) }
      let expected = Self.naive(subject, pattern)
      matched += expected ? 1 : 0
      try #require(
        try matches(subject, pattern) == expected, "round \(round): \(subject) LIKE \(pattern)")
    }
    #expect(matched > 300 && matched < 3700)
  }

  @Test func aPatternThatAlmostMatchesEverywhereIsPassedOnce() throws {
    // Trying each beginning anew, or each way to share the subject among the `%`, would never end.
    let subject = [UInt8](repeating: 0x61, count: 1 << 20)
    let literal = String(repeating: "a", count: 2000) + "b"
    #expect(try !matches(subject, "%\(literal)%"))
    #expect(try !matches(subject, String(repeating: "%a", count: 1500) + "%b"))
    #expect(try !matches(subject, String(repeating: "%a_a", count: 900) + "%b"))
    #expect(try !matches(subject, "%\(String(repeating: "a", count: 61))_ab%"))
    let broken = (0..<1 << 19).flatMap { _ in [0x61, 0x80] as [UInt8] }
    #expect(try !matches(broken, "%a%"))
  }
}
