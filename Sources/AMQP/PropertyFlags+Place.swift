import Base

extension PropertyFlags {
  /// Where the value of this property, one alone, is in the bytes of a block, flags in front: strings
  /// without their length, headers with it. nil if it is not there, or the block is damaged before it.
  public func place(in properties: RawSpan) -> Range<Int>? {
    guard properties.byteCount >= 2 else { return nil }
    let present = UInt16(
      bigEndian: properties.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt16.self))
    guard present & rawValue != 0 else { return nil }
    var offset = 2
    // The first property has the highest bit.
    var left = present & ~(rawValue &- 1)
    while left != 0 {
      let flag = PropertyFlags(rawValue: 0x8000 >> UInt16(left.leadingZeroBitCount))
      guard let (start, end) = flag.extent(from: offset, properties) else { return nil }
      if flag == self { return start..<end }
      left &= ~flag.rawValue
      offset = end
    }
    return nil
  }

  /// Where the value begins and ends that comes next; nil if the block ends before.
  private func extent(from offset: Int, _ properties: RawSpan) -> (start: Int, end: Int)? {
    let left = properties.byteCount - offset
    let (prefix, size): (Int, Int)
    switch self {
    case .deliveryMode, .priority: (prefix, size) = (0, 1)
    case .timestamp: (prefix, size) = (0, 8)
    case .headers:
      guard left >= 4 else { return nil }
      let count = UInt32(
        bigEndian: properties.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
      (prefix, size) = (0, 4 + Int(count))
    default:
      guard left >= 1 else { return nil }
      (prefix, size) = (1, Int(properties.unsafeLoad(fromByteOffset: offset, as: UInt8.self)))
    }
    guard left >= prefix + size else { return nil }
    return (offset + prefix, offset + prefix + size)
  }
}
