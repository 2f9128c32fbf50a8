/// Bytes as text, three in four letters.
package enum Base64 {
  private static let letters = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  package static func encode(_ bytes: [UInt8]) -> String {
    var result: [UInt8] = []
    result.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let taken = min(3, bytes.count - start)
      let group = (0..<3).reduce(0) { group, index in
        group << 8 | (index < taken ? Int(bytes[start + index]) : 0)
      }
      for index in 0..<4 {
        let isPadding = index > taken
        result.append(
          isPadding ? UInt8(ascii: "=") : letters[group >> (18 - 6 * index) & 63])
      }
    }
    return String(decoding: result, as: UTF8.self)
  }

  /// Nil if `text` is not what `encode` makes of some bytes.
  package static func decode(_ text: String) -> [UInt8]? {
    let characters = Array(text.utf8)
    guard characters.count % 4 == 0 else { return nil }
    var result: [UInt8] = []
    result.reserveCapacity(characters.count / 4 * 3)
    for start in stride(from: 0, to: characters.count, by: 4) {
      let isLast = start + 4 == characters.count
      let padding = characters[start..<start + 4].reversed()
        .prefix { $0 == UInt8(ascii: "=") }.count
      guard padding <= (isLast ? 2 : 0) else { return nil }
      var group = 0
      for index in 0..<4 {
        let value = index < 4 - padding ? values[Int(characters[start + index])] : 0
        guard value >= 0 else { return nil }
        group = group << 6 | Int(value)
      }
      // What the padding leaves out must be nothing.
      guard group & ((1 << (8 * padding)) - 1) == 0 else { return nil }
      for index in 0..<(3 - padding) { result.append(UInt8(group >> (16 - 8 * index) & 0xFF)) }
    }
    return result
  }

  /// The value of each letter; -1 for what is none.
  private static let values: [Int8] = {
    var values = [Int8](repeating: -1, count: 256)
    for (value, letter) in letters.enumerated() { values[Int(letter)] = Int8(value) }
    return values
  }()
}
