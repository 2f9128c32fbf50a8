import AMQP
import Base
import Broker

/// Content that does not come in one piece: header frame, then body frames, perhaps in parts.
extension Session {
  func receiveContentHeader(_ number: UInt16, _ payload: RawSpan) {
    guard let channel = openChannel(number, Frame.header) else { return }
    guard case .published(let publication) = channel.content else {
      return fail(Self.outOfPlace(Frame.header, channel.content))
    }
    guard payload.byteCount >= 14 else {
      return fail(.malformedHeader(reason: MalformedInput.truncated.reason), BasicPublish.id)
    }
    let classID = payload.bigEndian16(0)
    guard classID == Frame.basicClass else {
      return fail(.headerClass(class: classID, expected: Frame.basicClass), BasicPublish.id)
    }
    let weight = payload.bigEndian16(2)
    guard weight == 0 else { return fail(.headerWeight(weight: weight), BasicPublish.id) }
    let size = payload.bigEndian64(4)
    guard size <= UInt64(settings.messageSizeMax) else {
      channel.content = .none
      count(channel)
      return fail(
        .messageTooLarge(size: size, limit: settings.messageSizeMax), BasicPublish.id,
        on: channel)
    }
    let properties = payload.extracting(12..<payload.byteCount).withUnsafeBytes { Array($0) }
    channel.content = .headed(publication, properties: properties, bodySize: Int(size))
    count(channel)
    guard headBytes <= settings.messageSizeMax else {
      return fail(.tooMuchContent(limit: settings.messageSizeMax), BasicPublish.id)
    }
    if size == 0 { publish(channel) }
  }

  /// A body frame whose end is not there yet: its bytes are taken as they come.
  func beginPartialBody(_ number: UInt16, _ size: Int) -> Int {
    guard let channel = openChannel(number, Frame.body) else {
      if state == .open { partialBody = (size + 1, number) }
      return Frame.headerSize
    }
    guard case .headed(_, _, let bodySize) = channel.content else {
      fail(Self.outOfPlace(Frame.body, channel.content))
      return Frame.headerSize
    }
    guard channel.bodyCount + size <= bodySize else {
      fail(
        .bodyTooLong(received: channel.bodyCount + size, announced: bodySize), BasicPublish.id)
      return Frame.headerSize
    }
    partialBody = (size + 1, number)
    return Frame.headerSize
  }

  /// More of that frame; returns how much was taken. The last missing byte is the end marker.
  func receivePartialBody(_ bytes: RawSpan) -> Int {
    guard let (missing, number) = partialBody, bytes.byteCount > 0 else { return 0 }
    let count = min(missing - 1, bytes.byteCount)
    if count > 0 {
      partialBody = (missing - count, number)
      receiveBody(number, bytes.extracting(0..<count), isWhole: false)
      guard state == .open, missing - count == 1, bytes.byteCount > count else { return count }
    }
    partialBody = nil
    guard bytes.byte(count) == Frame.end else {
      fail(.missingFrameEnd)
      return count + 1
    }
    receiveBody(number, bytes.extracting(0..<0), isWhole: true)
    return count + 1
  }

  /// Bytes of a body. The message is published with its last byte, unless that byte's frame is not
  /// whole yet.
  func receiveBody(_ number: UInt16, _ payload: RawSpan, isWhole: Bool) {
    guard state == .open, let channel = openChannel(number, Frame.body) else { return }
    guard case .headed(_, _, let bodySize) = channel.content else {
      return fail(Self.outOfPlace(Frame.body, channel.content))
    }
    let received = channel.bodyCount + payload.byteCount
    guard received <= bodySize else {
      return fail(.bodyTooLong(received: received, announced: bodySize), BasicPublish.id)
    }
    guard assembledBytes + payload.byteCount <= 2 * settings.messageSizeMax else {
      return fail(.tooMuchContent(limit: 2 * settings.messageSizeMax), BasicPublish.id)
    }
    channel.append(payload, bodySize: bodySize, copiedMax: settings.copiedBodyMax)
    count(channel)
    if isWhole, received == bodySize { publish(channel) }
  }

  /// What is said of a frame that is not the one that the channel's content needs next.
  static func outOfPlace(
    _ type: UInt8, _ content: SessionChannel.Content
  ) -> PeerError {
    let frame = Frame.typeName(type)
    return switch content {
    case .none: .unexpectedContent(frame: frame)
    case .published: .expectedHeader(frame: frame)
    case .headed: .expectedBody(frame: frame)
    }
  }

  private func publish(_ channel: SessionChannel) {
    guard case .headed(let publication, let properties, _) = channel.content else { return }
    channel.content = .none
    var mistake: BrokerError?
    do throws(BrokerError) {
      try Self.publish(channel, publication, properties)
    } catch {
      mistake = error
    }
    // Before it fails, which may end the connection and what is counted of it.
    channel.forgetBody()
    count(channel)
    if let mistake { fail(PeerError(mistake), BasicPublish.id, on: channel) }
  }

  /// Counts what the channel holds of a message, after that has changed.
  func count(_ channel: SessionChannel) {
    let head = channel.headBytes
    let now = (
      held: channel.bodyCapacity + channel.headCapacity, body: channel.bodyCount, head: head
    )
    let counted = channel.counted
    if now.held != counted.held { heldBytes += now.held - counted.held }
    assembledBytes += now.body - counted.body
    headBytes += now.head - counted.head
    channel.counted = now
    contentProgress &+= 1
  }

  private static func publish(
    _ channel: SessionChannel, _ publication: SessionChannel.Publication, _ properties: [UInt8]
  ) throws(BrokerError) {
    if let draft = channel.draft {
      try channel.core.publish(
        draft, names: publication.names.span.bytes, isMandatory: publication.isMandatory,
        properties: properties.span.bytes)
    } else {
      let body = channel.body.readable
      try channel.core.publish(
        names: publication.names.span.bytes, isMandatory: publication.isMandatory,
        properties: properties.span.bytes, body: body.bytes)
    }
  }

  /// The channel that content belongs to; nil if it is discarded, or after an error was raised.
  private func openChannel(_ number: UInt16, _ type: UInt8) -> SessionChannel? {
    guard number < channels.count, let channel = channels[Int(number)] else {
      if number == 0 {
        fail(.unexpectedContent(frame: Frame.typeName(type)))
      } else {
        fail(.channelNotOpen)
      }
      return nil
    }
    return channel.isClosing ? nil : channel
  }
}
