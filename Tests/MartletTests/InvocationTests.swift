import Testing

@testable import martlet

@Suite struct InvocationTests {
  private static let name = Option.argument("NAME", as: .text, "A name.")
  private static let other = Option.argument("OTHER", as: .text, default: "none", "Another.")
  private static let size = Option.value(
    "size", short: "s", "N", as: .integer(1...10), default: 5, variable: "TEST_SIZE", "A size.")
  private static let key = Option.list("key", short: "k", "KEY", as: .text, "Keys.")
  private static let quiet = Option.flag("quiet", short: "q", "Silence.")
  private static let wait = Option.optional("wait", "DURATION", as: .duration, "A time.")

  private static let command = Command(
    name: "try", summary: "try it", arguments: [name, other],
    options: [size, key, quiet, wait], action: .group([]))

  private func invocation(
    _ words: [String], _ environment: [String: String] = [:]
  ) throws(UsageError) -> Invocation {
    try Invocation(
      of: Self.command, path: ["martlet", "try"], words: words, environment: environment)
  }

  @Test func defaultsHoldWhereNothingIsGiven() throws {
    let found = try invocation(["a"])
    #expect(found[Self.name] == "a")
    #expect(found[Self.other] == "none")
    #expect(found[Self.size] == 5)
    #expect(found[Self.key] == [])
    #expect(!found[Self.quiet])
    #expect(found[Self.wait] == nil)
    #expect(!found.has(Self.size))
  }

  @Test func optionsStandAnywhereInAnyForm() throws {
    let found = try invocation(
      ["-k", "1", "a", "--key=2=3", "--size", "7", "b", "-q", "--wait", "2s", "--key", "-x"])
    #expect(found[Self.name] == "a")
    #expect(found[Self.other] == "b")
    #expect(found[Self.size] == 7)
    #expect(found[Self.key] == ["1", "2=3", "-x"])
    #expect(found[Self.quiet])
    #expect(found[Self.wait] == 2000)
    #expect(found.has(Self.size))
  }

  @Test func theLastOneWins() throws {
    let found = try invocation(["a", "--size", "1", "--size", "2", "-q", "--no-quiet"])
    #expect(found[Self.size] == 2)
    #expect(!found[Self.quiet])
    #expect(try invocation(["a", "--quiet=yes"])[Self.quiet])
  }

  @Test func twoDashesEndTheOptions() throws {
    let found = try invocation(["--", "--size", "-"])
    #expect(found[Self.name] == "--size")
    #expect(found[Self.other] == "-")
  }

  @Test func theEnvironmentStandsInForAnOption() throws {
    #expect(try invocation(["a"], ["TEST_SIZE": "9"])[Self.size] == 9)
    #expect(try invocation(["a", "-s", "8"], ["TEST_SIZE": "9"])[Self.size] == 8)
    #expect(try invocation(["a", "-s", "8"], ["TEST_SIZE": ""])[Self.size] == 8)
  }

  @Test func anEmptyVariableIsAMistake() {
    #expect(throws: UsageError("TEST_SIZE is empty; give it a value, or unset it")) {
      try invocation(["a"], ["TEST_SIZE": ""])
    }
  }

  @Test(arguments: [
    ([], "NAME is missing"),
    (["a", "b", "c"], #"unexpected "c""#),
    (["a", "--kye", "x"], #"there is no option "--kye"; did you mean "--key"?"#),
    (["a", "-z"], #"there is no option "-z""#),
    (["a", "--size"], "--size N: the value is missing"),
    (["a", "--size", "--quiet"], "--size N: the value is missing"),
    (["a", "--size", "11"], #"--size: "11" is not a whole number from 1 to 10"#),
    (["a", "--quiet=perhaps"], #"--quiet: "perhaps" is not true or false"#),
    (
      ["a", "--wait", "5"],
      #"--wait: "5" is not a duration; write for example 500ms, 5s, 1m or 1h"#
    ),
  ])
  func mistakesAreNamed(words: [String], text: String) {
    #expect(throws: UsageError(text)) { try invocation(words) }
  }
}
