import Testing

@testable import martlet

@Suite struct FiguresTests {
  @Test(arguments: [
    (0.0, 2, "0.00"), (1.005, 0, "1"), (0.05, 1, "0.1"), (12.345, 2, "12.35"), (-0.5, 1, "-0.5"),
    (.infinity, 1, "?"),
  ])
  func decimalsAreRounded(number: Double, decimals: Int, text: String) {
    #expect(Figures.fixed(number, decimals) == text)
  }

  @Test(arguments: [
    (1500, "1.5 us"), (999_000, "999 us"), (2_500_000, "2.50 ms"), (250_000_000, "250 ms"),
    (3_000_000_000, "3.00 s"),
  ])
  func durationsHaveTheirUnit(nanoseconds: Int64, text: String) {
    #expect(Figures.duration(nanoseconds: nanoseconds) == text)
  }

  @Test(arguments: [(12, "12 B"), (2048, "2.0 KiB"), (5_242_880, "5.0 MiB"), (3 << 30, "3.00 GiB")])
  func sizesHaveTheirUnit(bytes: Int, text: String) {
    #expect(Figures.bytes(bytes) == text)
  }
}
