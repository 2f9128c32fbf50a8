import Testing

@testable import Server

/// The text of the error that `body` throws; "none" if it does not.
private func complaint(_ body: () throws(OptionsError) -> OptionsParser) -> String {
  do throws(OptionsError) {
    _ = try body()
    return "none"
  } catch {
    return error.description
  }
}

@Suite struct OptionsParserTests {
  private let file: (String) throws(OptionsError) -> String = { _ in
    """
    # A comment.
    frame-max = 64KiB   # and another one
    user = "night # shift"
    listen=127.0.0.1:5672, [::1]:5672
    """
  }

  @Test func withoutAnythingTheDefaultsHold() throws {
    let parser = try OptionsParser()
    #expect(parser.options == Options())
    #expect(parser.source(of: "frame-max") == .standard)
  }

  @Test func everyDefaultInWordsIsTheDefault() throws {
    for declaration in Options.declarations {
      var options = Options()
      try declaration.apply(declaration.standard, to: &options)
      try declaration.apply(declaration.words(in: options), to: &options)
      #expect(options == Options(), "\(declaration.name)")
    }
  }

  @Test func everyBoundIsTaken() throws {
    for declaration in Options.declarations {
      guard let bounds = declaration.bounds else { continue }
      for bound in bounds.split(separator: ".") {
        var options = Options()
        try declaration.apply(String(bound), to: &options)
      }
    }
  }

  @Test func theFileSetsOptions() throws {
    let parser = try OptionsParser(flags: [OptionFlag("config", "m.conf")], readFile: file)
    #expect(parser.options.frameMaxBytes == 65_536)
    #expect(parser.options.user == "night # shift")
    #expect(parser.options.listen == ["127.0.0.1:5672", "[::1]:5672"])
    #expect(parser.source(of: "frame-max") == .file(path: "m.conf", line: 2))
  }

  @Test func theStrongerSourceWins() throws {
    let environment = ["MARTLET_CONFIG": "m.conf", "MARTLET_FRAME_MAX": "16KiB"]
    let weak = try OptionsParser(environment: environment, readFile: file)
    #expect(weak.options.frameMaxBytes == 16_384)
    #expect(weak.source(of: "frame-max") == .environment("MARTLET_FRAME_MAX"))
    let strong = try OptionsParser(
      flags: [OptionFlag("frame-max", "8KiB"), OptionFlag("frame-max", "32KiB")],
      environment: environment, readFile: file)
    #expect(strong.options.frameMaxBytes == 32_768)
    #expect(strong.source(of: "frame-max") == .flag("--frame-max"))
    #expect(strong.options.user == "night # shift")
  }

  @Test(arguments: [
    ("guest-loopback-only", nil, true), ("guest-loopback-only", "false", false),
    ("guest-loopback-only", "on", true), ("no-guest-loopback-only", nil, false),
  ])
  func flagsSayYesOrNo(name: String, value: String?, expected: Bool) throws {
    let parser = try OptionsParser(flags: [OptionFlag(name, value)])
    #expect(parser.options.guestLoopbackOnly == expected)
  }

  @Test(arguments: [
    ("frame-max", "12", #"--frame-max: "12" is too small; it goes from 4KiB to 16MiB"#),
    (
      "frame-max", "64kb",
      #"--frame-max: "64kb" is not a size; write for example 65536, 128KiB, 64MiB or 2GiB"#
    ),
    (
      "heartbeat", "30",
      #"--heartbeat: "30" is not a duration; write for example 500ms, 10s, 5m or 1h"#
    ),
    ("channel-max", "70000", #"--channel-max: "70000" is too large; it goes from 1 to 65535"#),
    (
      "channel-max", "many",
      #"--channel-max: "many" is not a whole number; write for example 2047"#
    ),
    (
      "durability", "sync",
      #"--durability: "sync" is none of its values; write synced or written"#
    ),
    ("guest-loopback-only", "maybe", #"--guest-loopback-only: "maybe" is neither true nor false"#),
    ("lisen", "*:1", #"--lisen: there is no option "lisen"; did you mean "listen"?"#),
    ("user", nil, "--user: a value is missing"),
  ])
  func flagsThatAreWrongSayWhatWouldBeRight(name: String, value: String?, text: String) {
    #expect(
      complaint { () throws(OptionsError) in
        try OptionsParser(flags: [OptionFlag(name, value)])
      } == text)
  }

  @Test(arguments: [
    ("\nlisen = *:1", #"m.conf line 2: there is no option "lisen"; did you mean "listen"?"#),
    ("listen", #"m.conf line 1: expected "name = value", found "listen""#),
    ("user = a\r\nuser = b", "m.conf line 2: user was set on line 1 already"),
    ("user = \"a", "m.conf line 1: the value has no closing quote"),
    ("user = \"a\" b", #"m.conf line 1: unexpected "b" behind the closing quote"#),
    (
      "heartbeat = soon",
      #"m.conf line 1: heartbeat: "soon" is not a duration; "#
        + "write for example 500ms, 10s, 5m or 1h"
    ),
  ])
  func linesThatAreWrongAreNamed(text: String, expected: String) {
    #expect(
      complaint { () throws(OptionsError) in
        try OptionsParser(flags: [OptionFlag("config", "m.conf")], readFile: { _ in text })
      } == expected)
  }

  @Test func aVariableThatIsNearlyRightIsAnError() {
    #expect(
      complaint { () throws(OptionsError) in
        try OptionsParser(environment: ["MARTLET_LISEN": "*:1"])
      } == #"environment MARTLET_LISEN: there is no such option; did you mean "MARTLET_LISTEN"?"#)
  }

  @Test(arguments: [
    ("MARTLET_PASWORD", "x", #"there is no such option; did you mean "MARTLET_PASSWORD"?"#),
    ("MARTLET_URI", "x", #"there is no such option; did you mean "MARTLET_URL"?"#),
    ("MARTLET_BUILD_STAGE", "2", "there is no such option; unset it"),
    ("MARTLET_PASSWORD", "", "it is empty; give it a value, or unset it"),
    ("MARTLET_URL", "", "it is empty; give it a value, or unset it"),
    ("MARTLET_CONFIG", "", "it is empty; give it a value, or unset it"),
  ])
  func aVariableThatSaysNothingIsAnError(variable: String, value: String, text: String) {
    #expect(
      complaint { () throws(OptionsError) in try OptionsParser(environment: [variable: value]) }
        == "environment \(variable): \(text)")
  }

  @Test func variablesOfOthersAreLeftAlone() throws {
    let parser = try OptionsParser(environment: [
      "MARTLET_URL": "amqp://localhost", "MARTLET_PORT_5672_TCP": "tcp://10.0.0.1:5672",
      "MARTLET_SERVICE_HOST": "10.0.0.1", "HOME": "/", "MARTLET": "/usr/bin/martlet",
    ])
    #expect(parser.options == Options())
  }

  @Test(arguments: [
    "5672", "localhost", "localhost:", ":x", "a:65536", "a:-1", "a:+1", "::1:5672", "[::1]",
    "[a]:1", "a:1:2",
  ])
  func whatIsNoAddressIsNamedWithItsSource(text: String) {
    let said = complaint { () throws(OptionsError) in
      try OptionsParser(flags: [OptionFlag("listen", "*:1, \(text)")])
    }
    #expect(said.hasPrefix(#"--listen: "\#(text)" is not an address; write HOST:PORT"#))
  }

  @Test func addressesAreReadAsTheyAreMeant() {
    let all = ListenAddress("*:7")?.addresses.map(\.description)
    #expect(all == ["[::]:7", "0.0.0.0:7"])
    #expect(ListenAddress(":7")?.addresses.count == 2)
    #expect(ListenAddress("[::1]:0")?.addresses.map(\.host) == ["::1"])
    #expect(ListenAddress("broker.example:65535")?.addresses.map(\.port) == [65_535])
  }

  @Test func aDirectoryWithoutANameIsAnError() {
    #expect(
      complaint { () throws(OptionsError) in try OptionsParser(flags: [OptionFlag("data", "")]) }
        == "--data: the directory has no name")
  }

  @Test func theReportIsAConfigurationFile() throws {
    let first = try OptionsParser(
      flags: [OptionFlag("config", "m.conf"), OptionFlag("product", #"a "b" \ # c"#)],
      environment: ["MARTLET_PASSWORD": "hush"], readFile: file)
    let report = first.report
    #expect(!report.contains("hush"))
    #expect(report.contains("# m.conf line 2\n"))
    let second = try OptionsParser(
      flags: [OptionFlag("config", "r.conf")], readFile: { _ in report })
    var expected = first.options
    expected.password = Options().password
    #expect(second.options == expected)
  }
}

@Suite struct QuantityTests {
  @Test(arguments: [
    ("0", 0), ("0B", 0), ("512", 512), ("4kib", 4096), ("2GiB", 2_147_483_648), ("", nil),
    ("KiB", nil), ("-1", nil), ("1.5KiB", nil), ("1KB", nil), ("9999999PiB", nil),
  ])
  func sizes(word: String, bytes: Int?) {
    #expect(Quantity.bytes(word) == bytes)
  }

  @Test(arguments: [
    ("0", 0), ("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("10", nil),
    ("s", nil), ("1d", nil), ("-1s", nil),
  ])
  func durations(word: String, milliseconds: Int?) {
    #expect(Quantity.milliseconds(word) == milliseconds)
  }

  @Test(arguments: [
    ("0", 0), ("0us", 0), ("50us", 50), ("1ms", 1000), ("2s", 2_000_000), ("50", nil), ("1m", nil),
    ("us", nil),
  ])
  func shortDurations(word: String, microseconds: Int?) {
    #expect(Quantity.microseconds(word) == microseconds)
  }

  @Test(arguments: [("0us", 0), ("50us", 50), ("1ms", 1000), ("1500us", 1500), ("2s", 2_000_000)])
  func shortDurationsInWords(words: String, microseconds: Int) {
    #expect(Quantity.words(microseconds: microseconds) == words)
  }
}
