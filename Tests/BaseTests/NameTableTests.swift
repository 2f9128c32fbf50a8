import Arbitrary
import Base
import Testing

@Suite struct NameTableTests {
  @Test func aNameIsFoundUntilItIsRemoved() {
    var table = NameTable()
    table.insert("a" as Name, 1)
    table.insert("" as Name, 2)
    #expect(table.value("a") == 1)
    #expect(table.value("") == 2)
    #expect(table.value("b") == nil)
    table.remove("a" as Name)
    table.remove("b" as Name)
    #expect(table.value("a") == nil)
    #expect(table.value("") == 2)
    let count = table.count
    #expect(count == 1)
  }

  @Test func namesThatDifferInTheirLengthAloneAreDifferent() {
    var table = NameTable()
    for length in 0...255 {
      table.insert([UInt8](repeating: 0, count: length), Int32(length))
    }
    for length in 0...255 {
      #expect(table.value([UInt8](repeating: 0, count: length)) == Int32(length))
    }
  }

  @Test func namesThatDifferInOneByteAreDifferent() {
    var table = NameTable()
    let base = [UInt8](repeating: 0x61, count: 64)
    var keys = [base]
    for index in base.indices {
      keys.append(base)
      keys[index + 1][index] = 0x62
    }
    for (index, key) in keys.enumerated() { table.insert(key, Int32(index)) }
    for (index, key) in keys.enumerated() { #expect(table.value(key) == Int32(index)) }
  }

  /// Phases in which the table mostly fills or mostly empties, so that it is rebuilt larger, smaller,
  /// and full of places where something was removed.
  @Test(arguments: Seed.some(20))
  func anySequenceOfChangesAgreesWithADictionary(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var table = NameTable()
    var model: [[UInt8]: Int32] = [:]
    let keys = Self.keys(500, &random)
    for phase in 0..<12 {
      let insertsInTen = random.number(0...10)
      for step in 0..<300 {
        let key = random.choose(keys)
        if model[key] == nil, random.number(1...10) <= insertsInTen {
          let value: Int32 = random.integer()
          table.insert(key, value)
          model[key] = value
        } else if random.number(1...10) > insertsInTen {
          table.remove(key)
          model[key] = nil
        }
        let (count, value) = (table.count, table.value(key))
        try #require(count == model.count && value == model[key], "phase \(phase), step \(step)")
      }
      for key in keys { try #require(table.value(key) == model[key], "phase \(phase), \(key)") }
    }
  }

  @Test func aTableThatIsFilledAndEmptiedForEverStaysFast() {
    var table = NameTable()
    for round in 0..<20_000 {
      let key = Name("key \(round)")
      table.insert(key, Int32(round))
      table.remove(key)
    }
    let count = table.count
    #expect(count == 0)
    #expect(table.value(Array("key 7".utf8)) == nil)
  }

  /// Few lengths and few letters: much that is nearly the same.
  private static func keys(_ count: Int, _ random: inout SeededGenerator) -> [[UInt8]] {
    var keys: Set<[UInt8]> = []
    while keys.count < count {
      let size = random.choose([1, 7, 8, 9, 16, 255])
      keys.insert((0..<size).map { _ in UInt8(random.number(0...3)) })
      if random.oneIn(4) { keys.insert(random.bytes(upTo: 255)) }
    }
    return keys.sorted { $0.lexicographicallyPrecedes($1) }
  }

  @Test func insertingANameTwiceStopsTheProcess() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var table = NameTable()
      table.insert("a" as Name, 1)
      table.insert("a" as Name, 2)
    }
    #expect(result?.says("invariant broken: a name was inserted twice") == true)
  }
}

extension NameTable {
  fileprivate borrowing func value(_ key: [UInt8]) -> Int32? {
    key.withUnsafeBytes { find($0) }
  }

  fileprivate borrowing func value(_ name: Name) -> Int32? { find(name) }
}

@Suite struct SeededHashTests {
  @Test func theSameBytesHaveTheSameHashWhereverTheyStand() {
    let bytes = Array(UInt8(0)...UInt8(99))
    for start in 0..<8 {
      let shifted = [UInt8](repeating: 7, count: start) + bytes
      let hash = shifted.withUnsafeBytes {
        SeededHash.hash(UnsafeRawBufferPointer(rebasing: $0[start...]))
      }
      #expect(hash == Self.hash(bytes))
    }
  }

  @Test func everyLengthOfZerosHasAHashOfItsOwn() {
    let hashes = Set((0...300).map { Self.hash([UInt8](repeating: 0, count: $0)) })
    #expect(hashes.count == 301)
  }

  @Test func everyBitCounts() {
    for count in [1, 7, 8, 9, 17] {
      var bytes = [UInt8](repeating: 0x5A, count: count)
      let hash = Self.hash(bytes)
      for bit in 0..<count * 8 {
        bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        #expect(Self.hash(bytes) != hash, "bit \(bit) of \(count) bytes")
        bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      }
    }
  }

  /// Sixteen names for each of 256 places: a place with more than 80 would be a miracle.
  @Test func similarNamesAreSpread() {
    var places = [Int](repeating: 0, count: 256)
    for index in 0..<4096 { places[Int(Self.hash(Array("queue.\(index)".utf8)) & 255)] += 1 }
    #expect(places.allSatisfy { $0 < 80 })
  }

  private static func hash(_ bytes: [UInt8]) -> UInt64 {
    bytes.withUnsafeBytes { SeededHash.hash($0) }
  }
}
