import AMQP
import Base
import Broker

extension Session {
  private static let publishID: UInt32 = 60 << 16 | 40
  /// A message that is not larger is left where it is until all of it is there; larger ones are put
  /// together from what arrives.
  private static let fusedBytesMax = 16 << 10
  /// Requests, or messages, that are taken before the time is looked at again; a power of two.
  private static let requestsPerLook = 32
  /// What the fast path says of a message that it waits for.
  private static let underway = -1

  /// Takes as much of `bytes` as makes whole frames, or pieces of bodies; returns how much. What is
  /// left must come again with more behind it, unless the session pauses or ends, or with room in
  /// `out` if `isOutputFull`.
  func receive(_ bytes: RawSpan) -> Int {
    var offset = pause == .blocked ? receiveBlocked(bytes) : 0
    if state == .awaitingHeader {
      offset = receiveHeader(bytes)
      if state == .awaitingHeader { return offset }
    }
    isOutputFull = false
    var count = 0
    while pause == .none, state != .closed {
      guard unsentBytes < settings.answersMax else {
        isOutputFull = true
        break
      }
      // Requests cost what they lead to: a publish may reach thousands of queues.
      count &+= 1
      if count & (Self.requestsPerLook &- 1) == 0, broker.isTurnLong(), !isPassing {
        pause = .untilNextTurn
        break
      }
      if partialBody != nil {
        let taken = receivePartialBody(bytes.extracting(offset..<bytes.byteCount))
        offset += taken
        if taken == 0 { break }
        continue
      }
      guard bytes.byteCount - offset >= Frame.headerSize else { break }
      let fused = fastFrames(bytes, offset)
      if fused > 0 {
        offset += fused
        continue
      }
      guard fused == 0, pause == .none, state != .closed else { break }
      let taken = receiveFrame(bytes, offset)
      if taken == 0 { break }
      offset += taken
    }
    if pause == .blocked, !isPassing, offset < bytes.byteCount {
      offset += receiveBlocked(bytes.extracting(offset..<bytes.byteCount))
    }
    if state == .closed { return bytes.byteCount }
    return offset
  }

  // MARK: The fast path

  /// The frames that make up nearly all traffic, when they are whole in the buffer: a publish with
  /// header and one body, and an acknowledgement. Returns 0 for anything else, which the careful
  /// path takes, and `underway` when nothing is to be taken before more has come.
  @inline(__always)
  private func fastFrames(_ bytes: RawSpan, _ offset: Int) -> Int {
    let count = bytes.byteCount
    guard state == .open, count &- offset >= 21,
      bytes.byte(offset) == Frame.method
    else { return 0 }
    let number = Int(bytes.bigEndian16(offset &+ 1))
    guard number < channels.count, let channel = channels[number], !channel.isClosing,
      case .none = channel.content
    else { return 0 }
    let id = bytes.bigEndian32(offset &+ 7)
    let size = Int(bytes.bigEndian32(offset &+ 3))
    if id == Self.publishID {
      return fastPublish(bytes, offset, size, channel)
    }
    if id == channel.ackID, size == 13, bytes.byte(offset &+ 20) == Frame.end {
      fastAcknowledge(bytes, offset, channel)
      return 21
    }
    return 0
  }

  @inline(__always)
  private func fastAcknowledge(_ bytes: RawSpan, _ offset: Int, _ channel: SessionChannel) {
    let tag = bytes.bigEndian64(offset &+ 11)
    do throws(BrokerError) {
      try channel.core.acknowledgeAtOnce(tag, isMultiple: bytes.byte(offset &+ 19) & 1 != 0)
    } catch {
      fail(PeerError(error), BasicAck.id, on: channel)
    }
  }

  /// Returns 0 unless method, header and body are well-formed and need no assembly.
  @inline(__always)
  private func fastPublish(
    _ bytes: RawSpan, _ offset: Int, _ size: Int, _ channel: SessionChannel
  ) -> Int {
    let count = bytes.byteCount
    // class, method, reserved, two names of at least no bytes, flags
    guard size >= 9, size <= 600, count &- offset >= size &+ 8 else { return 0 }
    let names = offset &+ 13
    let exchange = Int(bytes.byte(names))
    guard 4 &+ 2 &+ 1 &+ exchange &+ 2 <= size else { return 0 }
    let key = Int(bytes.byte(names &+ 1 &+ exchange))
    let flags = names &+ 2 &+ exchange &+ key
    guard 4 &+ 2 &+ 2 &+ exchange &+ key &+ 1 == size, bytes.byte(flags &+ 1) == Frame.end,
      bytes.byte(flags) & 0b10 == 0
    else { return 0 }
    let header = flags &+ 2
    guard count &- header >= 8 &+ 14 else {
      return Self.underway(bytes, header, Frame.header, channel.number)
    }
    guard bytes.byte(header) == Frame.header,
      bytes.bigEndian16(header &+ 1) == channel.number
    else { return 0 }
    let headerSize = Int(bytes.bigEndian32(header &+ 3))
    guard headerSize >= 14, headerSize <= frameMax else { return 0 }
    guard count &- header >= headerSize &+ 8 else {
      return headerSize <= Self.fusedBytesMax ? Self.underway : 0
    }
    guard bytes.bigEndian32(header &+ 7) == UInt32(Frame.basicClass) << 16,
      bytes.byte(header &+ 7 &+ headerSize) == Frame.end
    else { return 0 }
    let bodySize = bytes.bigEndian64(header &+ 11)
    let properties = bytes.extracting(header &+ 19..<header &+ 7 &+ headerSize)
    var end = header &+ 8 &+ headerSize
    var body = bytes.extracting(end..<end)
    if bodySize > 0 {
      guard bodySize <= UInt64(frameMax), bodySize <= UInt64(settings.messageSizeMax) else {
        return 0
      }
      guard count &- end >= Int(bodySize) &+ 8 else {
        return bodySize <= UInt64(Self.fusedBytesMax)
          ? Self.underway(bytes, end, Frame.body, channel.number, size: UInt32(bodySize)) : 0
      }
      guard bytes.byte(end) == Frame.body,
        bytes.bigEndian16(end &+ 1) == channel.number,
        UInt64(bytes.bigEndian32(end &+ 3)) == bodySize,
        bytes.byte(end &+ 7 &+ Int(bodySize)) == Frame.end
      else { return 0 }
      body = bytes.extracting(end &+ 7..<end &+ 7 &+ Int(bodySize))
      end = end &+ 8 &+ Int(bodySize)
    }
    guard mayPublish() else { return 0 }
    do throws(BrokerError) {
      try channel.core.publish(
        names: bytes.extracting(names..<flags), isMandatory: bytes.byte(flags) & 1 != 0,
        properties: properties, body: body)
    } catch {
      fail(PeerError(error), BasicPublish.id, on: channel)
    }
    return end &- offset
  }

  /// `underway` if what has come at `place` can be the beginning of the frame that is missing, 0 if
  /// it is that of another one.
  @inline(never)
  private static func underway(
    _ bytes: RawSpan, _ place: Int, _ type: UInt8, _ channel: UInt16, size: UInt32? = nil
  ) -> Int {
    let count = bytes.byteCount &- place
    if count >= 1, bytes.byte(place) != type { return 0 }
    if count >= 3, bytes.bigEndian16(place &+ 1) != channel { return 0 }
    if let size, count >= Frame.headerSize, bytes.bigEndian32(place &+ 3) != size { return 0 }
    return underway
  }

  /// Whether the broker takes messages; otherwise this session pauses before the frame.
  @inline(__always)
  private func mayPublish() -> Bool {
    isPublisher = true
    if let reason = broker.alarm, !isPassing {
      block(reason)
      return false
    }
    return true
  }

  // MARK: The careful path

  private func receiveHeader(_ bytes: RawSpan) -> Int {
    let wanted = Frame.protocolHeader
    let count = min(wanted.count, bytes.byteCount)
    let isPrefix = bytes.extracting(0..<count).withUnsafeBytes {
      $0.elementsEqual(wanted[..<count])
    }
    if isPrefix {
      guard count == wanted.count else { return 0 }
      start()
      return count
    }
    // Clients of 0-9 mean the same protocol.
    let older: [UInt8] = Array("AMQP".utf8) + [1, 1, 0, 9]
    if bytes.byteCount >= 8,
      bytes.extracting(0..<8).withUnsafeBytes({ $0.elementsEqual(older) })
    {
      start()
      return 8
    }
    if bytes.byteCount < 8,
      bytes.extracting(0..<min(4, count)).withUnsafeBytes({
        $0.elementsEqual(wanted[..<min(4, count)])
      })
    {
      return 0
    }
    log.tell(
      .wrongProtocol, of: peerName,
      "\(peerName) does not speak AMQP 0-9-1: \(Self.guess(bytes))")
    out.append(wanted)
    markDirty()
    state = .closed
    return bytes.byteCount
  }

  /// What a client that sent something else may have meant.
  private static func guess(_ bytes: RawSpan) -> String {
    let start = bytes.extracting(0..<min(8, bytes.byteCount)).withUnsafeBytes { Array($0) }
    if start.starts(with: Array("AMQP".utf8)) {
      return "it asks for version \(start.dropFirst(4).map(String.init).joined(separator: "-"))"
    }
    if start.starts(with: [0x16, 0x03]) { return "it speaks TLS, which is not served here" }
    if start.starts(with: Array("GET ".utf8)) { return "it speaks HTTP" }
    return "it begins with \(start)"
  }

  /// One frame at `offset`; 0 if it is not whole.
  private func receiveFrame(_ bytes: RawSpan, _ offset: Int) -> Int {
    let type = bytes.byte(offset)
    let channel = bytes.bigEndian16(offset + 1)
    let size = Int(bytes.bigEndian32(offset + 3))
    guard [Frame.method, Frame.header, Frame.body, Frame.heartbeat].contains(type) else {
      fail(.unknownFrameType(type: type))
      return Frame.headerSize
    }
    guard size <= frameMax else {
      let whole = size + Frame.overhead
      fail(
        isTuned
          ? .frameTooLarge(size: whole, limit: frameMax)
          : .frameBeforeTune(size: whole, limit: frameMax))
      return Frame.headerSize
    }
    let rest = bytes.byteCount - offset - Frame.headerSize
    if type == Frame.body, rest < size + 1, state == .open {
      return beginPartialBody(channel, size)
    }
    guard rest >= size + 1 else { return 0 }
    guard bytes.byte(offset + Frame.headerSize + size) == Frame.end else {
      fail(.missingFrameEnd)
      return Frame.headerSize
    }
    let start = offset + Frame.headerSize
    let isTaken = receive(type, channel, bytes.extracting(start..<start + size))
    return isTaken ? size + Frame.overhead : 0
  }

  /// A whole frame. False if it must come again, since the session paused before it.
  private func receive(_ type: UInt8, _ channel: UInt16, _ payload: RawSpan) -> Bool {
    switch type {
    case Frame.heartbeat:
      if channel != 0 { fail(.heartbeatChannel(channel: channel)) }
      if payload.byteCount > 0 { fail(.heartbeatPayload(size: payload.byteCount)) }
    case Frame.method:
      return receiveMethod(channel, payload)
    case Frame.header:
      if state == .open { receiveContentHeader(channel, payload) } else { unexpected(type) }
    default:
      if state == .open { receiveBody(channel, payload, isWhole: true) } else { unexpected(type) }
    }
    return true
  }

  private func unexpected(_ type: UInt8) {
    if state != .closing { fail(.unexpectedContent(frame: Frame.typeName(type))) }
  }

  private func receiveMethod(_ channel: UInt16, _ payload: RawSpan) -> Bool {
    guard payload.byteCount >= 4 else {
      fail(.malformedMethod(method: "method", reason: MalformedInput.truncated.reason))
      return true
    }
    let id = MethodID(classID: payload.bigEndian16(0), methodID: payload.bigEndian16(2))
    if state == .open, id == BasicPublish.id, !mayPublish() { return false }
    let decoded: Method?
    do throws(MalformedInput) {
      var reader = ByteReader(payload.extracting(4..<payload.byteCount))
      decoded = try Method.decode(id, from: &reader)
      if decoded != nil, !reader.isAtEnd { throw .invalid("bytes behind its fields") }
    } catch {
      fail(.malformedMethod(method: id, reason: error.reason), id)
      return true
    }
    guard let method = decoded else {
      if state != .closing { fail(.unknownMethod(class: id.classID, method: id.methodID), id) }
      return true
    }
    isRepeating = false
    handle(method, on: channel)
    return !isRepeating
  }
}

extension RawSpan {
  @inline(__always) func byte(_ offset: Int) -> UInt8 {
    unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  @inline(__always) func bigEndian16(_ offset: Int) -> UInt16 {
    UInt16(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  @inline(__always) func bigEndian32(_ offset: Int) -> UInt32 {
    UInt32(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  @inline(__always) func bigEndian64(_ offset: Int) -> UInt64 {
    UInt64(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}
