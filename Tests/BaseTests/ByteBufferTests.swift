import Arbitrary
import Base
import Testing

@Suite struct ByteBufferTests {
  @Test func integersAreBigEndianAndStringsHaveTheirLength() {
    var buffer = ByteBuffer()
    buffer.append(UInt8(1))
    buffer.append(UInt16(0x0203))
    buffer.append(UInt32(0x0405_0607))
    buffer.append(UInt64(0x0809_0A0B_0C0D_0E0F))
    buffer.append("ab" as Name)
    buffer.appendLong([7, 8])
    let more: [UInt8] = [9, 10]
    buffer.append(more.span.bytes)
    let bytes = Array(buffer.readable)
    #expect(bytes == Array(1...15) + [2, 0x61, 0x62, 0, 0, 0, 2, 7, 8, 9, 10])
  }

  @Test func nothingCanBeAppendedToNothing() {
    var buffer = ByteBuffer()
    let nothing: [UInt8] = []
    buffer.append(nothing)
    buffer.append(nothing.span.bytes)
    buffer.append(UnsafeRawBufferPointer(start: nil, count: 0))
    let isEmpty = buffer.isEmpty
    let readable = Array(buffer.readable)
    #expect(isEmpty)
    #expect(readable.isEmpty)
  }

  @Test func growingKeepsWhatWasWritten() {
    var buffer = ByteBuffer(capacity: 3)
    let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    for byte in bytes { buffer.append(byte) }
    let written = Array(buffer.readable)
    #expect(written == bytes)
  }

  @Test func whatWasConsumedMakesRoomForMore() {
    var buffer = ByteBuffer(capacity: 256)
    buffer.append([UInt8](repeating: 1, count: 100))
    for round in 0..<1000 {
      buffer.append([UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 100))
      buffer.consume(100)
    }
    let (capacity, count) = (buffer.capacity, buffer.count)
    let last = Array(buffer.readable)
    #expect(capacity == 256)
    #expect(count == 100)
    #expect(last == [UInt8](repeating: UInt8(truncatingIfNeeded: 999), count: 100))
  }

  @Test func aSizeIsPatchedWhenItIsKnown() {
    var buffer = ByteBuffer()
    buffer.append(UInt32(0))
    buffer.append([5, 6, 7])
    buffer.patch(0x0102_0304, fromEnd: 7)
    let patched = Array(buffer.readable)
    #expect(patched == [1, 2, 3, 4, 5, 6, 7])
    buffer.patch(.max, fromEnd: 4)
    let again = Array(buffer.readable)
    #expect(again == [1, 2, 3, 255, 255, 255, 255])
  }

  @Test func memoryIsGivenBackOnlyWhenNothingIsInIt() {
    var buffer = ByteBuffer()
    buffer.append([UInt8](repeating: 1, count: 5000))
    buffer.shrink(to: 0)
    let kept = buffer.count
    #expect(kept == 5000)
    buffer.consume(5000)
    buffer.shrink(to: 100)
    let shrunk = buffer.capacity
    #expect(shrunk == 100)
    buffer.shrink(to: 0)
    let gone = buffer.capacity
    #expect(gone == 0)
    buffer.append(UInt8(3))
    let bytes = Array(buffer.readable)
    #expect(bytes == [3])
  }

  @Test(arguments: Seed.some(50))
  func anySequenceOfChangesAgreesWithAnArray(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var buffer = ByteBuffer(capacity: random.choose([0, 1, 16, 300]))
    var model: [UInt8] = []
    for step in 0..<500 {
      change(&buffer, &model, &random)
      let bytes = Array(buffer.readable)
      try #require(bytes == model, "step \(step)")
      let (count, isEmpty, capacity) = (buffer.count, buffer.isEmpty, buffer.capacity)
      try #require(count == model.count && isEmpty == model.isEmpty && capacity >= count)
    }
  }

  private func change(
    _ buffer: inout ByteBuffer, _ model: inout [UInt8], _ random: inout SeededGenerator
  ) {
    switch random.number(0...11) {
    case 0:
      let byte: UInt8 = random.integer()
      buffer.append(byte)
      model.append(byte)
    case 1:
      let word: UInt16 = random.integer()
      buffer.append(word)
      withUnsafeBytes(of: word.bigEndian) { model += $0 }
    case 2:
      let word: UInt32 = random.integer()
      buffer.append(word)
      withUnsafeBytes(of: word.bigEndian) { model += $0 }
    case 3:
      let word: UInt64 = random.integer()
      buffer.append(word)
      withUnsafeBytes(of: word.bigEndian) { model += $0 }
    case 4, 5, 6: append(&buffer, &model, random.bytes(upTo: 600), &random)
    case 7:
      let count = random.number(0...model.count)
      buffer.consume(count)
      model.removeFirst(count)
    case 8:
      let count = random.number(0...min(20, model.count))
      buffer.removeLast(count)
      model.removeLast(count)
    case 9 where model.count >= 4:
      let distance = random.number(4...model.count)
      let word: UInt32 = random.integer()
      buffer.patch(word, fromEnd: distance)
      let start = model.count - distance
      withUnsafeBytes(of: word.bigEndian) { model.replaceSubrange(start..<start + 4, with: $0) }
    case 10 where random.oneIn(5):
      buffer.removeAll()
      model = []
    default:
      buffer.shrink(to: random.number(0...64))
    }
  }

  /// Appends the bytes in one of the ways there are.
  private func append(
    _ buffer: inout ByteBuffer, _ model: inout [UInt8], _ bytes: [UInt8],
    _ random: inout SeededGenerator
  ) {
    model += bytes
    switch random.number(0...3) {
    case 0: buffer.append(bytes)
    case 1: buffer.append(bytes.span.bytes)
    case 2: bytes.withUnsafeBytes { buffer.append($0) }
    default:
      let room = buffer.reserve(max(1, bytes.count))
      UnsafeMutableRawBufferPointer(start: room, count: bytes.count).copyBytes(from: bytes)
      buffer.advance(bytes.count)
    }
  }

  // MARK: Misuse

  @Test func consumingMoreThanWasWrittenStopsTheProcess() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var buffer = ByteBuffer()
      buffer.append(UInt32(1))
      buffer.consume(5)
    }
    #expect(result?.says("invariant broken: consumed more than was written") == true)
  }

  @Test func removingMoreThanWasWrittenStopsTheProcess() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var buffer = ByteBuffer()
      buffer.append(UInt32(1))
      buffer.consume(1)
      buffer.removeLast(4)
    }
    #expect(result?.says("invariant broken: removed more than was written") == true)
  }

  @Test func patchingOutsideStopsTheProcess() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var buffer = ByteBuffer()
      buffer.append(UInt32(1))
      buffer.patch(1, fromEnd: 3)
    }
    #expect(result?.says("invariant broken: patch outside of the written bytes") == true)
  }
}
