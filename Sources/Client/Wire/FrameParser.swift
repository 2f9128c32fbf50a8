import AMQP
import Base

/// Finds frames and whole messages in received bytes. A message whose frames stand together is
/// handed over as it lies; one that is larger, or mixed with other channels' frames, is assembled.
struct FrameParser {
  /// What the bytes begin with.
  enum Step {
    /// Nothing whole yet.
    case incomplete
    /// A message or a confirm, which the sink has got, or something that needs no one.
    case handled(size: Int)
    case method(Method, channel: UInt16, size: Int)
  }

  /// The largest payload that is accepted. Some count a frame's overhead in frame_max, some do not.
  var payloadMax = 131_072
  /// Messages that have begun but not ended, by channel.
  private var assemblies: [UInt16: MessageAssembly] = [:]
  /// The last assembly that ended; its memory is used again.
  private var spare: MessageAssembly?

  /// Messages of more bytes than this are assembled while they come in, instead of waiting in the
  /// receive buffer until they are whole.
  static let waitingSizeMax = 65_536

  /// Looks at the first frame, or the first message if its frames stand together.
  mutating func step(_ bytes: RawSpan, into sink: any WireSink) throws(ClientError) -> Step {
    guard let frame = try frame(in: bytes, at: 0) else { return .incomplete }
    switch frame.type {
    case Frame.method:
      return try method(frame, in: bytes, into: sink)
    case Frame.header:
      let assembly = try assembly(of: frame)
      try assembly.header(bytes.extracting(frame.payload))
      try finish(assembly, channel: frame.channel, into: sink)
    case Frame.body:
      let assembly = try assembly(of: frame)
      try assembly.body(bytes.extracting(frame.payload))
      try finish(assembly, channel: frame.channel, into: sink)
    case Frame.heartbeat:
      break
    default:
      throw .protocolViolation("a frame of unknown type \(frame.type)")
    }
    return .handled(size: frame.end)
  }

  /// Forgets a message that had begun on a channel which is closed.
  mutating func forget(channel: UInt16) {
    assemblies[channel] = nil
  }

  private mutating func method(
    _ frame: FoundFrame, in bytes: RawSpan, into sink: any WireSink
  ) throws(ClientError) -> Step {
    guard frame.payload.count >= 4 else { throw .protocolViolation("a method frame without id") }
    let id = MethodID(
      classID: bytes.bigEndian16(at: frame.payload.lowerBound),
      methodID: bytes.bigEndian16(at: frame.payload.lowerBound + 2))
    let arguments = bytes.extracting(frame.payload.lowerBound + 4..<frame.payload.upperBound)
    if !assemblies.isEmpty, assemblies[frame.channel] != nil {
      guard id == ChannelClose.id else {
        throw .protocolViolation("\(id) in the middle of a message")
      }
      forget(channel: frame.channel)
    }
    if let kind = WireMessage.Kind(id) {
      return try message(kind, frame, arguments, in: bytes, into: sink)
    }
    if id == BasicAck.id || id == BasicNack.id {
      try confirm(id, frame.channel, arguments, into: sink)
      return .handled(size: frame.end)
    }
    return .method(try decode(id, arguments), channel: frame.channel, size: frame.end)
  }

  private func confirm(
    _ id: MethodID, _ channel: UInt16, _ arguments: RawSpan, into sink: any WireSink
  ) throws(ClientError) {
    guard arguments.byteCount >= 9 else { throw .protocolViolation("\(id) is too short") }
    sink.confirmed(
      tag: arguments.bigEndian64(at: 0),
      isMultiple: arguments.byte(at: 8) & 1 != 0,
      isAccepted: id == BasicAck.id, channel: channel)
  }

  private func decode(_ id: MethodID, _ arguments: RawSpan) throws(ClientError) -> Method {
    var reader = ByteReader(arguments)
    let decoded: Method?
    do {
      decoded = try Method.decode(id, from: &reader)
    } catch {
      throw .protocolViolation("\(id): \(error.reason)")
    }
    guard let decoded else { throw .protocolViolation("unknown method \(id)") }
    return decoded
  }

  /// Hands over the message that begins with `method` if its frames stand together, asks for more
  /// bytes if they still may, and otherwise begins to assemble it.
  private mutating func message(
    _ kind: WireMessage.Kind, _ method: FoundFrame, _ arguments: RawSpan, in bytes: RawSpan,
    into sink: any WireSink
  ) throws(ClientError) -> Step {
    guard let header = try frame(in: bytes, at: method.end) else { return .incomplete }
    guard header.type == Frame.header, header.channel == method.channel else {
      return begin(kind, method, arguments)
    }
    let content = try ContentHeader(bytes.extracting(header.payload))
    let properties = bytes.extracting(
      header.payload.lowerBound + ContentHeader.size..<header.payload.upperBound)
    if content.bodySize == 0 {
      let body = bytes.extracting(0..<0)
      try handOver(kind, method.channel, arguments, properties, body, to: sink)
      return .handled(size: header.end)
    }
    guard content.bodySize <= payloadMax, header.end + content.bodySize <= Self.waitingSizeMax
    else { return begin(kind, method, arguments) }
    guard let body = try frame(in: bytes, at: header.end) else { return .incomplete }
    guard body.type == Frame.body, body.channel == method.channel,
      body.payload.count == content.bodySize
    else { return begin(kind, method, arguments) }
    try handOver(
      kind, method.channel, arguments, properties, bytes.extracting(body.payload), to: sink)
    return .handled(size: body.end)
  }

  private mutating func begin(
    _ kind: WireMessage.Kind, _ method: FoundFrame, _ arguments: RawSpan
  ) -> Step {
    let assembly = spare ?? MessageAssembly()
    spare = nil
    assembly.begin(kind, arguments)
    assemblies[method.channel] = assembly
    return .handled(size: method.end)
  }

  private func assembly(of frame: FoundFrame) throws(ClientError) -> MessageAssembly {
    guard let assembly = assemblies[frame.channel] else {
      throw .protocolViolation(
        "a \(Frame.typeName(frame.type)) frame without a method before it")
    }
    return assembly
  }

  private mutating func finish(
    _ assembly: MessageAssembly, channel: UInt16, into sink: any WireSink
  ) throws(ClientError) {
    guard assembly.isWhole else { return }
    assemblies[channel] = nil
    defer { spare = assembly.isWorthKeeping ? assembly : nil }
    try handOver(
      assembly.kind, channel, assembly.arguments.span.bytes, assembly.properties.span.bytes,
      assembly.body.span.bytes, to: sink)
  }

  private func handOver(
    _ kind: WireMessage.Kind, _ channel: UInt16, _ arguments: RawSpan, _ properties: RawSpan,
    _ body: RawSpan, to sink: any WireSink
  ) throws(ClientError) {
    let message: WireMessage
    do {
      message = try WireMessage(
        kind, channel: channel, arguments: arguments, properties: properties, body: body)
    } catch {
      throw .protocolViolation("the method of a message: \(error.reason)")
    }
    sink.received(message)
  }

  /// The frame at `start`; nil if it is not whole.
  private func frame(in bytes: RawSpan, at start: Int) throws(ClientError) -> FoundFrame? {
    guard bytes.byteCount - start >= Frame.headerSize else { return nil }
    let size = Int(bytes.bigEndian32(at: start + 3))
    guard size <= payloadMax else {
      throw .protocolViolation("a frame of \(size) bytes, and \(payloadMax) were agreed")
    }
    let payload = start + Frame.headerSize..<start + Frame.headerSize + size
    guard payload.upperBound < bytes.byteCount else { return nil }
    guard bytes.byte(at: payload.upperBound) == Frame.end else {
      throw .protocolViolation("a frame does not end with the end marker")
    }
    return FoundFrame(
      type: bytes.byte(at: start), channel: bytes.bigEndian16(at: start + 1), payload: payload)
  }
}

/// Where a whole frame lies in the received bytes.
private struct FoundFrame {
  let type: UInt8
  let channel: UInt16
  let payload: Range<Int>

  /// The first byte behind the frame.
  var end: Int { payload.upperBound + 1 }
}

/// What a content header says before the properties: class (u16), weight (u16), body size (u64).
struct ContentHeader {
  static let size = 12
  /// The largest body that is accepted, whatever the broker announces.
  static let bodySizeMax = 1 << 30

  let bodySize: Int

  init(_ payload: RawSpan) throws(ClientError) {
    guard payload.byteCount >= Self.size + 2 else {
      throw .protocolViolation("a content header of \(payload.byteCount) bytes")
    }
    guard payload.bigEndian16(at: 0) == Frame.basicClass, payload.bigEndian16(at: 2) == 0 else {
      throw .protocolViolation("a content header of an unknown class")
    }
    let size = payload.bigEndian64(at: 4)
    guard size <= Self.bodySizeMax else {
      throw .protocolViolation("a message of \(size) bytes")
    }
    bodySize = Int(size)
  }
}

extension RawSpan {
  func byte(at offset: Int) -> UInt8 {
    unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  func bigEndian16(at offset: Int) -> UInt16 {
    UInt16(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  func bigEndian32(at offset: Int) -> UInt32 {
    UInt32(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  func bigEndian64(at offset: Int) -> UInt64 {
    UInt64(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}
