extension SeededGenerator {
  /// Damages the bytes in one of the ways in which a peer, a wire or a disk may.
  public mutating func mutate(_ bytes: inout [UInt8]) {
    guard !bytes.isEmpty else {
      bytes = self.bytes(number(1...8))
      return
    }
    let place = number(0...bytes.count - 1)
    switch number(0...8) {
    case 0, 1: bytes[place] ^= 1 << UInt8(number(0...7))
    case 2: bytes[place] = integer()
    case 3: overwrite(&bytes, at: place, with: integer(UInt16.self))
    case 4: overwrite(&bytes, at: place, with: integer(UInt32.self))
    case 5: bytes.removeLast(bytes.count - place)
    case 6: bytes.removeSubrange(place..<number(place...bytes.count))
    case 7: bytes.insert(contentsOf: self.bytes(number(1...16)), at: place)
    default: bytes.insert(contentsOf: bytes[place..<number(place...bytes.count)], at: place)
    }
  }

  /// Writes a big-endian integer over what stands at `place`, as far as there is something.
  private func overwrite<Value: FixedWidthInteger>(
    _ bytes: inout [UInt8], at place: Int, with value: Value
  ) {
    withUnsafeBytes(of: value.bigEndian) { source in
      for (offset, byte) in source.enumerated() where place + offset < bytes.count {
        bytes[place + offset] = byte
      }
    }
  }
}
