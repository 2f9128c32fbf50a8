/// The name of a queue, an exchange, a consumer, a routing key: at most 255 bytes, by custom UTF-8,
/// in fact any bytes; what a client sent is what every client sees.
public struct Name: Hashable, Sendable, Comparable {
  public static let sizeMax = 255

  public let bytes: [UInt8]

  /// Longer input is cut at 255 bytes, or a little before, never inside a UTF-8 character.
  public init(_ bytes: [UInt8]) {
    self.bytes = bytes.count <= Self.sizeMax ? bytes : Self.cut(bytes)
  }

  public init(_ string: String) {
    self.init(Array(string.utf8))
  }

  public init(copying span: RawSpan) {
    self.init(span.withUnsafeBytes { Array($0) })
  }

  public var isEmpty: Bool { bytes.isEmpty }

  public func hasPrefix(_ prefix: StaticString) -> Bool {
    bytes.starts(
      with: UnsafeBufferPointer(start: prefix.utf8Start, count: prefix.utf8CodeUnitCount))
  }

  public static func < (left: Name, right: Name) -> Bool {
    left.bytes.lexicographicallyPrecedes(right.bytes)
  }

  private static func cut(_ bytes: [UInt8]) -> [UInt8] {
    // A character has at most three bytes behind its first; more than that is no UTF-8.
    let end = (sizeMax - 3...sizeMax).last { bytes[$0] & 0b1100_0000 != 0b1000_0000 }
    return Array(bytes[..<(end ?? sizeMax)])
  }
}

extension Name: ExpressibleByStringLiteral, CustomStringConvertible {
  public init(stringLiteral value: String) { self.init(value) }

  public var description: String { String(decoding: bytes, as: UTF8.self) }
}
