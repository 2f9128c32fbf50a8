import Testbed
import Testing

@testable import Broker

@Suite struct ReturnedOffsetsTests {
  @Test(arguments: Seeds.all)
  func theyComeInTheirOrder(seed: UInt64) {
    var random = SeededRandom(seed)
    let offsets = ReturnedOffsets()
    var model: [UInt64] = []
    for round in 0..<2000 {
      switch random.number(0..<6) {
      case 0:
        let value = UInt64(random.number(0..<1000))
        guard !model.contains(value) else { continue }
        offsets.insert(value)
        model.append(value)
        model.sort()
      case 1, 2:
        // Below or above all that are there.
        let low = model.first ?? 1000
        let value = round % 2 == 0 ? low - min(low, 1) : (model.last ?? 1000) + 1
        guard !model.contains(value) else { continue }
        offsets.insert(value)
        model.append(value)
        model.sort()
      default:
        guard !model.isEmpty else { continue }
        offsets.removeFirst()
        model.removeFirst()
      }
      #expect(offsets.first == model.first)
      #expect(offsets.isEmpty == model.isEmpty)
    }
    while !model.isEmpty {
      #expect(offsets.first == model.removeFirst())
      offsets.removeFirst()
    }
    #expect(offsets.isEmpty && offsets.byteCount == 0)
  }
}
