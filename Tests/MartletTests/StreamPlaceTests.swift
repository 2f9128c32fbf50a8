import Testing

@testable import martlet

@Suite struct StreamPlaceTests {
  @Test(arguments: [
    ("first", StreamPlace.word("first")), ("last", .word("last")), ("next", .word("next")),
    ("90m", .word("90m")), ("7D", .word("7D")), ("1M", .word("1M")),
    ("0", .offset(0)), ("4711", .offset(4711)), ("-10", .offset(-10)),
    ("9223372036854775807", .offset(.max)), ("-9223372036854775808", .offset(.min)),
    ("2023-11-14T22:13:20Z", .time(1_700_000_000)),
    ("2023-11-14T23:13:20+01:00", .time(1_700_000_000)),
  ])
  func wordsNamePlaces(word: String, place: StreamPlace) {
    #expect(StreamPlace(word) == place)
  }

  @Test(arguments: [
    "", "frist", "First", "m", "-5m", "+5", "1.5", "5 m", "90w", "٣", "٣m", "9223372036854775808",
    "2023-11-14", "1950-01-01T00:00:00Z", "-", "--1",
  ])
  func otherWordsDoNot(word: String) {
    #expect(StreamPlace(word) == nil)
  }
}

@Suite struct TextTableTests {
  @Test func columnsAreAsWideAsTheyNeedToBe() {
    var table = TextTable(("name", .left), ("count", .right), ("by", .left))
    #expect(table.text() == "name  count  by\n")
    table.add("a longer name", "7", "me")
    table.add("ü", "1,234,567", "-")
    #expect(
      table.text(indent: 2) == """
          name               count  by
          a longer name          7  me
          ü              1,234,567  -

        """)
  }
}
