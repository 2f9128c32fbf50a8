import AMQP
import Base
import Glibc
import Journal

/// What the letters have in common that follow each other: they died in one queue, within a second, for the same
/// reason, and had the same names and headers. Their letters go the same way, and differ only in what is copied.
///
/// Only for letters that a route without settings takes, which looks at no message: nothing but storing them is to
/// be done. It holds until something about the routes of the virtual host changes.
final class LetterModel {
  private let queueID: UInt32
  private let reason: DeathReason
  private let seconds: Int64
  private let generation: Int
  /// Names and properties of the message, and behind them names, properties and the table of headers of the letter.
  private let memory: UnsafeMutableRawPointer
  private let names: Int
  private let properties: Int
  private let letterNames: Int
  private let letterProperties: Int
  private let letterHeaders: Range<Int>
  private let headers: Range<Int>
  private let isPersistent: Bool
  let route: Route

  /// Of more bytes of body than this each letter is stored by itself.
  private static let bodyMax = 64 << 10

  /// nil where more is to be done for a letter than to store it.
  init?(
    of letter: DeadLetter, names: RawSpan, properties: RawSpan, _ queue: Queue,
    _ reason: DeathReason, now: Int64, along route: Route
  ) {
    let block = MessageBytes.block(properties)
    guard route.isPlain, route.count > 0, !route.needsMessage, route.delaying.isEmpty,
      route.remembrances.isEmpty, route.keepers.isEmpty, !block.flags.contains(.expiration)
    else { return nil }
    queueID = queue.id
    self.reason = reason
    seconds = now / 1000
    generation = queue.vhost.bindingGeneration
    self.names = names.byteCount
    self.properties = properties.byteCount
    letterNames = letter.names.count
    letterProperties = letter.properties.count
    letterHeaders = letter.headers
    headers = block.headers
    isPersistent = letter.isPersistent
    self.route = route
    let whole = names.byteCount + properties.byteCount + letterNames + letterProperties
    memory = .allocate(byteCount: whole, alignment: 8)
    var place = Self.copy(names, to: memory)
    place = Self.copy(properties, to: place)
    place = Self.copy(letter.names.span.bytes, to: place)
    _ = Self.copy(letter.properties.span.bytes, to: place)
  }

  deinit {
    memory.deallocate()
  }

  private static func copy(
    _ bytes: RawSpan, to place: UnsafeMutableRawPointer
  ) -> UnsafeMutableRawPointer {
    bytes.withUnsafeBytes { bytes in
      if bytes.count > 0 { place.copyMemory(from: bytes.baseAddress!, byteCount: bytes.count) }
    }
    return place + bytes.byteCount
  }

  /// It is of what dies there, now, for this reason.
  @inline(__always)
  func holds(for queue: Queue, _ reason: DeathReason, now: Int64) -> Bool {
    queueID == queue.id && self.reason == reason && seconds == now / 1000
      && generation == queue.vhost.bindingGeneration
  }

  /// How a message becomes its letter.
  struct Letter {
    fileprivate let names: UnsafeRawPointer
    fileprivate let propertiesSize: Int
    fileprivate let bodySize: Int
    /// Bytes of the letter's properties.
    fileprivate let size: Int
    /// Where its headers stood, or would have; nil if all of its properties are the model's.
    fileprivate let place: Range<Int>?
    let isPersistent: Bool

    var bodyBytes: Int { bodySize }
    var propertiesBytes: Int { size }
  }

  /// nil if the message is not like those of the model.
  @inline(__always)
  func letter(of record: UnsafeRawPointer) -> Letter? {
    let start = record + MessageRecord.restOffset
    let size = Int(record.load(fromByteOffset: MessageRecord.propertiesSizeOffset, as: UInt32.self))
    let body = Int(record.load(fromByteOffset: 12, as: UInt32.self))
    guard body <= Self.bodyMax else { return nil }
    guard size == properties, memcmp(start, memory, names + properties) == 0 else {
      return other(start, size, body)
    }
    return Letter(
      names: start, propertiesSize: size, bodySize: body, size: letterProperties, place: nil,
      isPersistent: isPersistent)
  }

  /// Of one whose properties differ in nothing that the headers say.
  @inline(never)
  private func other(_ start: UnsafeRawPointer, _ size: Int, _ body: Int) -> Letter? {
    guard memcmp(start, memory, names) == 0 else { return nil }
    let bytes = UnsafeRawBufferPointer(start: start + names, count: size)
    let block = MessageBytes.block(bytes.bytes)
    guard !block.flags.contains(.expiration), block.headers.count == headers.count,
      headers.isEmpty
        || memcmp(
          start + names + block.headers.lowerBound, memory + names + headers.lowerBound,
          headers.count) == 0
    else { return nil }
    let place = DeadLetter.headersPlace(bytes.bytes, block)
    return Letter(
      names: start, propertiesSize: size, bodySize: body,
      size: size - place.count + letterHeaders.count, place: place, isPersistent: block.isPersistent
    )
  }

  /// What a letter takes in a record.
  @inline(__always)
  func size(of letter: Letter) -> Int { letterNames &+ letter.size &+ letter.bodySize }

  /// Writes names, properties and body of a letter. Returns what is behind them.
  @inline(__always)
  func write(_ letter: Letter, at payload: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
    let source = memory + names + properties
    var place = payload
    if letter.place == nil {
      place.copyMemory(from: source, byteCount: letterNames &+ letterProperties)
      place += letterNames &+ letterProperties
    } else {
      place.copyMemory(from: source, byteCount: letterNames)
      place = writeOther(letter, at: place + letterNames)
    }
    place.copyMemory(
      from: letter.names + names + letter.propertiesSize, byteCount: letter.bodySize)
    return place + letter.bodySize
  }

  private func writeOther(
    _ letter: Letter, at start: UnsafeMutableRawPointer
  ) -> UnsafeMutableRawPointer {
    guard let gap = letter.place else { return start }
    let properties = letter.names + names
    let table = memory + names + self.properties + letterNames + letterHeaders.lowerBound
    let flags = PropertyFlags.headers.rawValue
    start.copyMemory(from: properties, byteCount: gap.lowerBound)
    start.storeBytes(
      of: start.load(as: UInt8.self) | UInt8(flags >> 8), as: UInt8.self)
    var place = start + gap.lowerBound
    place.copyMemory(from: table, byteCount: letterHeaders.count)
    place += letterHeaders.count
    let rest = letter.propertiesSize - gap.upperBound
    place.copyMemory(from: properties + gap.upperBound, byteCount: rest)
    return place + rest
  }
}
