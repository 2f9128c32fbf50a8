import Testing

@testable import Journal

/// What could not be given back is kept as little as says all.
@Suite struct RefusedReturnsTests {
  @Test func rangesThatWereWidenedStandOnce() {
    var refused = RefusedReturns()
    refused.add(.ranges(file: 7, isScratch: false, [0..<10, 20..<30]))
    refused.add(.ranges(file: 7, isScratch: false, [0..<15]))
    refused.add(.ranges(file: 3, isScratch: true, [5..<6]))
    #expect(!refused.isEmpty)
    #expect(
      refused.take() == [
        .ranges(file: 3, isScratch: true, [5..<6]),
        .ranges(file: 7, isScratch: false, [20..<30, 0..<15]),
      ])
    #expect(refused.isEmpty)
  }

  @Test func aFileThatIsToGoNeedsNoHoles() {
    var refused = RefusedReturns()
    refused.add(.ranges(file: 7, isScratch: false, [0..<10]))
    refused.add(.file(7, isScratch: false))
    refused.add(.ranges(file: 7, isScratch: false, [0..<12]))
    #expect(refused.take() == [.file(7, isScratch: false)])
  }
}
