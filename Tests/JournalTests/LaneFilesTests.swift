import Testing

@testable import Journal

/// What is given back of lane files, and when.
@Suite struct LaneFilesTests {
  private static let blockBytes = 64 << 10

  private func blocks(_ count: Int, file: UInt32) -> [LaneBlock] {
    (0..<count).map { index in
      LaneBlock(
        file: file, offset: 64 + index * Self.blockBytes, size: Self.blockBytes, lane: 1,
        first: UInt64(index), last: UInt64(index), count: 1, durableCount: 1,
        earliestExpiry: LaneBlock.neverExpires, durableBytes: 0)
    }
  }

  private func offset(_ index: Int) -> Int { 64 + index * Self.blockBytes }
  private func range(_ first: Int, _ end: Int) -> Range<Int> { offset(first)..<offset(end) }

  private func made(_ count: Int, isScratch: Bool = false) -> LaneFiles {
    var files = LaneFiles()
    files.add(files.takeNumber(), isScratch: isScratch, blocks(count, file: 1), areAlive: true)
    return files
  }

  @Test func nothingIsGivenBackBeforeTheLogSaysDurablyWhy() {
    var files = made(4)
    files.died(1, at: offset(1))
    #expect(files.settle(upTo: .max) == [], "the log was not told")
    #expect(files.takeHoles(bytesMin: 64 << 10) == [])
    files.seal(at: 1000)
    #expect(files.settle(upTo: 999) == [])
    #expect(files.takeHoles(bytesMin: 64 << 10) == [], "the log is not durable so far")
    #expect(files.hasSealed)
    #expect(files.settle(upTo: 1000) == [])
    #expect(
      files.takeHoles(bytesMin: 64 << 10) == [.ranges(file: 1, isScratch: false, [range(1, 2)])])
    #expect(files.takeHoles(bytesMin: 64 << 10) == [], "once")
    #expect(!files.hasSealed)
  }

  @Test func eachSealWaitsForItsOwnPosition() {
    var files = made(6)
    files.died(1, at: offset(1))
    files.seal(at: 10)
    files.died(1, at: offset(3))
    files.seal(at: 20)
    _ = files.settle(upTo: 10)
    #expect(
      files.takeHoles(bytesMin: 64 << 10) == [.ranges(file: 1, isScratch: false, [range(1, 2)])])
    _ = files.settle(upTo: 20)
    #expect(
      files.takeHoles(bytesMin: 64 << 10) == [.ranges(file: 1, isScratch: false, [range(3, 4)])])
  }

  @Test func neighboursAreOneHole() {
    var files = made(8)
    for index in [5, 2, 4, 7] { files.died(1, at: offset(index)) }
    files.seal(at: 1)
    _ = files.settle(upTo: 1)
    #expect(
      files.takeHoles(bytesMin: 64 << 10)
        == [.ranges(file: 1, isScratch: false, [range(2, 3), range(4, 6), range(7, 8)])])
    files.died(1, at: offset(3))
    files.seal(at: 2)
    _ = files.settle(upTo: 2)
    #expect(
      files.takeHoles(bytesMin: 64 << 10) == [.ranges(file: 1, isScratch: false, [range(2, 6)])])
  }

  @Test func aSmallHoleWaitsForItsNeighbours() {
    var files = LaneFiles()
    let small = (0..<10).map { index in
      LaneBlock(
        file: 1, offset: 64 + index * 16384, size: 16384, lane: 1, first: 1, last: 1, count: 1,
        durableCount: 1, earliestExpiry: LaneBlock.neverExpires, durableBytes: 0)
    }
    files.add(1, isScratch: false, small, areAlive: true)
    for index in 2..<5 { files.died(1, at: small[index].offset) }
    files.seal(at: 1)
    _ = files.settle(upTo: 1)
    #expect(files.takeHoles(bytesMin: 64 << 10) == [])
    files.died(1, at: small[5].offset)
    files.seal(at: 2)
    _ = files.settle(upTo: 2)
    #expect(
      files.takeHoles(bytesMin: 64 << 10)
        == [.ranges(file: 1, isScratch: false, [small[2].offset..<small[6].offset])])
  }

  @Test func aFileGoesWhenTheLogDurablySaysThatItDoes() {
    var files = made(2)
    files.died(1, at: offset(0))
    files.died(1, at: offset(1))
    files.seal(at: 100)
    #expect(files.settle(upTo: 99) == [])
    #expect(files.settle(upTo: 100) == [1])
    #expect(files.listed == [1], "a checkpoint names it until the log says that it goes")
    files.doom(1, at: 150)
    #expect(files.listed == [])
    #expect(files.removable(upTo: 149) == [])
    #expect(files.removable(upTo: 150) == [.file(1, isScratch: false)])
    #expect(files.removable(upTo: .max) == [], "once")
    #expect(files.count == 0 && files.aliveBytes == 0)
  }

  @Test func aFileWithABlockThatDiedSinceStaysUntilThatIsKnown() {
    var files = made(2)
    files.died(1, at: offset(0))
    files.seal(at: 1)
    files.died(1, at: offset(1))
    #expect(files.settle(upTo: 1) == [])
    files.seal(at: 2)
    #expect(files.settle(upTo: 2) == [1])
  }

  @Test func aScratchFileIsNeitherListedNorWaitedFor() {
    var files = made(1, isScratch: true)
    #expect(files.listed == [] && files.isScratch(1))
    files.died(1, at: offset(0))
    files.seal(at: 1)
    #expect(files.settle(upTo: 1) == [1])
    files.doom(1, at: 500)
    #expect(files.removable(upTo: 1) == [.file(1, isScratch: true)])
  }

  @Test func whatIsNotClaimedOfAFileThatWasFoundIsDead() {
    var files = LaneFiles()
    files.add(1, isScratch: false, blocks(4, file: 1), areAlive: false)
    files.claim(1, at: offset(1))
    #expect(files.aliveBytes == Self.blockBytes)
    #expect(
      files.takeHoles(bytesMin: 64 << 10) == [
        .ranges(file: 1, isScratch: false, [range(0, 1), range(2, 4)])
      ])
    files.seal(at: 1)
    #expect(files.settle(upTo: 1) == [])
    files.died(1, at: offset(1))
    files.seal(at: 2)
    #expect(files.settle(upTo: 2) == [1])
  }

  @Test func aFileOfWhichNothingIsClaimedGoes() {
    var files = LaneFiles()
    files.add(7, isScratch: false, blocks(2, file: 7), areAlive: false)
    files.seal(at: 1)
    #expect(files.settle(upTo: 1) == [7])
  }

  @Test func aBlockIsClaimedOnce() async {
    await #expect(processExitsWith: .failure) {
      var files = LaneFiles()
      let block = LaneBlock(
        file: 1, offset: 64, size: 64, lane: 1, first: 1, last: 1, count: 1, durableCount: 1,
        earliestExpiry: LaneBlock.neverExpires, durableBytes: 0)
      files.add(1, isScratch: false, [block], areAlive: false)
      files.claim(1, at: 64)
      files.claim(1, at: 64)
    }
  }

  @Test func numbersAreNeverUsedAgain() {
    var files = LaneFiles()
    #expect(files.takeNumber() == 1)
    files.used(7)
    files.used(3)
    #expect(files.takeNumber() == 8)
    #expect(files.takeNumber() == 9)
  }

  @Test func bytesThatWaitForACheckpointAreCounted() {
    var files = made(4)
    #expect(files.retiredBytes == 0 && files.sealedBytes == 0)
    files.died(1, at: offset(0))
    files.seal(at: 10)
    #expect(files.sealedBytes == Self.blockBytes)
    _ = files.settle(upTo: 10)
    #expect(files.sealedBytes == 0)
    files.retire(1)
    #expect(files.retiredBytes == 4 * Self.blockBytes, "as it was written")
    files.forget(1)
    #expect(files.retiredBytes == 0)
    files.add(2, isScratch: false, blocks(2, file: 2), areAlive: true)
    files.retire(2)
    files.doom(2, at: 20)
    #expect(files.retiredBytes == 0 && files.sealedBytes == 2 * Self.blockBytes)
    _ = files.removable(upTo: 20)
    #expect(files.sealedBytes == 0)
  }
}
