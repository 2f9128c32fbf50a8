import AMQP
import Base
import Glibc

/// The dead letter that was made last. Those of one queue mostly have the same names and headers, and died in the
/// same second for the same reason: then what is added to their headers is the same, too, and is not made anew.
struct LetterMemo {
  private struct Origin {
    let queue: Name
    let target: DeadLetterTarget?
    let reason: DeathReason
    let seconds: Int64
    let names: [UInt8]
    /// As it had them when it died, with their length; empty if it had none.
    let headers: [UInt8]
    /// nil if it had none.
    let expiration: [UInt8]?
  }

  private var last: (origin: Origin, letter: DeadLetter)?
  /// The letter that was made last is like the one before it.
  private(set) var isAlike = false
  /// What is larger is made anew each time.
  private static let bytesMax = 16 << 10

  /// As `DeadLetter.init`.
  mutating func letter(
    names: RawSpan, properties: RawSpan, of queue: Queue, for reason: DeathReason, now: Int64
  ) -> DeadLetter? {
    let block = MessageBytes.block(properties)
    let hasExpiration = block.flags.contains(.expiration)
    let seconds = now / 1000
    if let (origin, letter) = last, origin.reason == reason, origin.seconds == seconds,
      origin.target == queue.settings?.deadLetters, origin.queue == queue.name,
      Self.isSame(names, origin.names),
      Self.isSame(properties.extracting(block.headers), origin.headers),
      hasExpiration == (origin.expiration != nil),
      Self.isSame(properties.extracting(block.expiration), origin.expiration ?? [])
    {
      isAlike = true
      return letter.with(properties, block)
    }
    isAlike = false
    guard
      let letter = DeadLetter(
        names: names, properties: properties, of: queue, for: reason, now: now)
    else { return nil }
    last = nil
    guard letter.properties.count <= Self.bytesMax else { return letter }
    let origin = Origin(
      queue: queue.name, target: queue.settings?.deadLetters, reason: reason, seconds: seconds,
      names: Self.bytes(names), headers: Self.bytes(properties.extracting(block.headers)),
      expiration: hasExpiration ? Self.bytes(properties.extracting(block.expiration)) : nil)
    last = (origin, letter)
    return letter
  }

  private static func isSame(_ span: RawSpan, _ bytes: [UInt8]) -> Bool {
    guard span.byteCount == bytes.count else { return false }
    guard !bytes.isEmpty else { return true }
    return span.withUnsafeBytes { span in
      bytes.withUnsafeBytes { memcmp(span.baseAddress!, $0.baseAddress!, $0.count) == 0 }
    }
  }

  private static func bytes(_ span: RawSpan) -> [UInt8] { span.withUnsafeBytes { Array($0) } }
}

extension DeadLetter {
  /// The same of another message, whose properties differ in nothing that the headers say.
  fileprivate func with(_ properties: RawSpan, _ block: PropertyBlock) -> DeadLetter {
    let table = self.properties[headers]
    let place = Self.headersPlace(properties, block)
    let (start, rest) = (place.lowerBound, place.upperBound)
    var made: [UInt8] = []
    made.reserveCapacity(properties.byteCount + table.count)
    let flags = block.flags.union(.headers).subtracting(.expiration).rawValue
    made.append(UInt8(flags >> 8))
    made.append(UInt8(truncatingIfNeeded: flags))
    properties.withUnsafeBytes { bytes in
      func append(_ range: Range<Int>) {
        made.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[range]))
      }
      append(2..<start)
      made.append(contentsOf: table)
      guard block.flags.contains(.expiration) else { return append(rest..<bytes.count) }
      // With its length in front.
      append(rest..<block.expiration.lowerBound - 1)
      append(block.expiration.upperBound..<bytes.count)
    }
    return DeadLetter(
      self, properties: made, headers: start..<start + table.count,
      isPersistent: block.isPersistent)
  }

  /// Where the headers are among the properties, or would be.
  static func headersPlace(_ properties: RawSpan, _ block: PropertyBlock) -> Range<Int> {
    if !block.headers.isEmpty { return block.headers }
    for flag in [.contentEncoding, .contentType] as [PropertyFlags] {
      if let place = flag.place(in: properties) { return place.upperBound..<place.upperBound }
    }
    return 2..<2
  }
}
