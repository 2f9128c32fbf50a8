import Base
import Testing

@Suite struct InvariantTests {
  @Test func whatHoldsCostsNoText() {
    var texts = 0
    let text = {
      texts += 1
      return "never"
    }
    invariant(texts == 0, text())
    #expect(texts == 0)
  }

  @Test func whatDoesNotHoldStopsTheProcessWithItsText() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      invariant(1 + 1 == 3, "one and one are \(1 + 1)")
    }
    #expect(result?.says("invariant broken: one and one are 2") == true)
    #expect(result?.says("InvariantTests.swift") == true)
  }

  @Test func failingWithoutConditionStopsTheProcessToo() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      invariantFailed("unreachable")
    }
    #expect(result?.says("invariant broken: unreachable") == true)
  }
}

extension ExitTest.Result {
  /// Whether the process wrote the text to its standard error.
  func says(_ text: String) -> Bool {
    String(decoding: standardErrorContent, as: UTF8.self).contains(text)
  }
}
