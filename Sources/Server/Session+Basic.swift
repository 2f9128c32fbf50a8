import AMQP
import Base
import Broker

/// The methods of class basic.
extension Session {
  func performBasic(_ method: Method, _ channel: SessionChannel) throws(BrokerError) {
    let core = channel.core
    switch method {
    case .basicQos(let arguments):
      guard arguments.prefetchSize == 0 else {
        let size = arguments.prefetchSize
        return fail(.prefetchSize(size: size), method.id, on: channel)
      }
      core.setPrefetch(Int(arguments.prefetchCount), isGlobal: arguments.global)
      send(.basicQosOk(.init()), on: channel.number)
    case .basicConsume(let arguments):
      let tag = try core.consume(
        arguments.queue, tag: arguments.consumerTag, isAutomatic: arguments.noAck,
        isExclusive: arguments.exclusive, arguments: arguments.arguments)
      if !arguments.noWait {
        send(.basicConsumeOk(.init(consumerTag: tag)), on: channel.number)
      }
    case .basicCancel(let arguments):
      core.cancel(arguments.consumerTag)
      if !arguments.noWait {
        send(.basicCancelOk(.init(consumerTag: arguments.consumerTag)), on: channel.number)
      }
    case .basicCancelOk: break
    case .basicGet(let arguments): try get(arguments, channel)
    case .basicAck(let arguments):
      try core.acknowledge(arguments.deliveryTag, isMultiple: arguments.multiple)
    case .basicNack(let arguments):
      try core.reject(
        arguments.deliveryTag, isMultiple: arguments.multiple, requeues: arguments.requeue)
    case .basicReject(let arguments):
      try core.reject(arguments.deliveryTag, isMultiple: false, requeues: arguments.requeue)
    case .basicRecover, .basicRecoverAsync:
      // Without requeue the specification would have the same consumers served again; that is one
      // of the orders in which requeued messages may be delivered.
      core.recover()
      if case .basicRecover = method { send(.basicRecoverOk(.init()), on: channel.number) }
    default: fail(.unexpectedMethod(method: method.id), method.id, on: channel)
    }
  }

  private func get(_ arguments: BasicGet, _ channel: SessionChannel) throws(BrokerError) {
    let result = try channel.core.get(arguments.queue, isAutomatic: arguments.noAck) {
      message, properties, tag, isRedelivered, remaining in
      let names = message.names
      let own = message.properties(behind: names)
      let body = message.body(behind: own)
      out.append(Frame.method)
      out.append(channel.number)
      out.append(UInt32(4 + 9 + names.count + 4))
      out.append(BasicGetOk.id.classID)
      out.append(BasicGetOk.id.methodID)
      out.append(tag)
      out.append(UInt8(isRedelivered ? 1 : 0))
      out.append(names)
      out.append(UInt32(clamping: remaining))
      out.append(Frame.end)
      appendContent(
        on: channel.number, fitting(properties, else: own), body, in: message.block)
      markDirty()
    }
    switch result {
    case .message: break
    case .empty: send(.basicGetEmpty(.init()), on: channel.number)
    case .notBefore(let position):
      pause = .untilDurable(position)
      isRepeating = true
    }
  }
}

extension Session: Outlet {
  func deliver(
    _ message: MessageView, to consumer: Consumer, on channel: Channel, tag: UInt64,
    isRedelivered: Bool
  ) {
    let names = message.names
    let properties = message.properties(behind: names)
    deliver(
      names, properties, message.body(behind: properties), in: message.block, to: consumer,
      on: channel, tag: tag, isRedelivered: isRedelivered)
  }

  func deliver(
    _ message: MessageView, with properties: UnsafeRawBufferPointer, to consumer: Consumer,
    on channel: Channel, tag: UInt64, isRedelivered: Bool
  ) {
    let names = message.names
    let own = message.properties(behind: names)
    deliver(
      names, fitting(properties, else: own), message.body(behind: own), in: message.block,
      to: consumer, on: channel, tag: tag, isRedelivered: isRedelivered)
  }

  /// Properties that the broker has added to, if they fit into one frame as they must.
  private func fitting(
    _ properties: UnsafeRawBufferPointer, else own: UnsafeRawBufferPointer
  ) -> UnsafeRawBufferPointer {
    Frame.overhead + Frame.contentHeaderSize + properties.count <= frameMax ? properties : own
  }

  /// basic.deliver, content header and body.
  @inline(__always)
  private func deliver(
    _ names: UnsafeRawBufferPointer, _ properties: UnsafeRawBufferPointer,
    _ body: UnsafeRawBufferPointer, in block: UInt32, to consumer: Consumer, on channel: Channel,
    tag: UInt64, isRedelivered: Bool
  ) {
    let tagBytes = consumer.tagBytes
    let methodSize = 4 &+ tagBytes.count &+ 9 &+ names.count
    if body.count <= wholeBodyMax {
      let headSize = methodSize &+ 8 &+ 20 &+ properties.count
      let bodySize = body.count == 0 ? 0 : body.count &+ Frame.overhead
      var place = out.reserve(headSize &+ bodySize)
      let number = channel.number
      place = Self.writeFrameStart(place, Frame.method, number, methodSize)
      place = Self.write(place, UInt32(60 << 16 | 60))
      place = Self.write(place, tagBytes)
      place = Self.write(place, tag)
      place = Self.write(place, UInt8(isRedelivered ? 1 : 0))
      place = Self.write(place, names)
      place = Self.write(place, Frame.end)
      place = Self.writeFrameStart(place, Frame.header, number, 12 &+ properties.count)
      place = Self.write(place, UInt32(Frame.basicClass) << 16)
      place = Self.write(place, UInt64(body.count))
      place = Self.write(place, properties)
      place = Self.write(place, Frame.end)
      if body.count > 0 {
        place = Self.writeFrameStart(place, Frame.body, number, body.count)
        place = Self.write(place, body)
        _ = Self.write(place, Frame.end)
      }
      out.advance(headSize &+ bodySize)
    } else {
      out.append(Frame.method)
      out.append(channel.number)
      out.append(UInt32(methodSize))
      out.append(BasicDeliver.id.classID)
      out.append(BasicDeliver.id.methodID)
      out.append(tagBytes)
      out.append(tag)
      out.append(UInt8(isRedelivered ? 1 : 0))
      out.append(names)
      out.append(Frame.end)
      appendContent(on: channel.number, properties, body, in: block)
    }
    if out.count >= outputLook { outputGrew() }
    markDirty()
  }

  /// Content header and body. A large body stays in the block that has it until it is sent.
  private func appendContent(
    on channel: UInt16, _ properties: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer,
    in block: UInt32?
  ) {
    guard let block, body.count > settings.copiedBodyMax else {
      // All of it at once, or the buffer doubles on its way there.
      let frames = body.count / (frameMax - Frame.overhead) + 1
      _ = out.reserve(20 + properties.count + body.count + frames * Frame.overhead)
      return out.appendContent(
        channel: channel, properties: properties, body: body, frameMax: frameMax)
    }
    out.appendContentHeader(channel: channel, properties: properties, bodySize: body.count)
    owed.append(
      body, loan: broker.journal.lend(block), channel: channel, frameMax: frameMax,
      ownCount: out.count)
    outputGrew()
  }

  @inline(__always)
  private static func writeFrameStart(
    _ place: UnsafeMutableRawPointer, _ type: UInt8, _ channel: UInt16, _ size: Int
  ) -> UnsafeMutableRawPointer {
    place.storeBytes(of: type, as: UInt8.self)
    place.storeBytes(of: channel.bigEndian, toByteOffset: 1, as: UInt16.self)
    place.storeBytes(
      of: UInt32(truncatingIfNeeded: size).bigEndian, toByteOffset: 3, as: UInt32.self)
    return place + Frame.headerSize
  }

  @inline(__always)
  private static func write<Value: FixedWidthInteger>(
    _ place: UnsafeMutableRawPointer, _ value: Value
  ) -> UnsafeMutableRawPointer {
    place.storeBytes(of: value.bigEndian, as: Value.self)
    return place + MemoryLayout<Value>.size
  }

  @inline(__always)
  private static func write(
    _ place: UnsafeMutableRawPointer, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutableRawPointer {
    place.copyMemory(from: bytes.baseAddress.unsafelyUnwrapped, byteCount: bytes.count)
    return place + bytes.count
  }

  func commitFailed(_ error: BrokerError, on channel: Channel) {
    delayedReply = nil
    guard let own = channels[Int(channel.number)] else { return }
    fail(PeerError(error), TxCommit.id, on: own)
  }

  func commitRolledBack(on channel: Channel) {
    delayedReply = (.txRollbackOk(.init()), channel.number)
  }

  func workBegan() {
    if pause == .none { pause = .untilDurable(0) }
  }

  func consumerTimedOut(
    _ tag: Name, of queue: Name, after milliseconds: Int64, on channel: Channel
  ) {
    log.tell(
      .consumerTimedOut, of: peerName,
      "\(peerName) has not acknowledged for \(milliseconds) ms: consumer '\(tag)' of queue"
        + " '\(queue)' on channel \(channel.number) is cancelled")
    consumerCancelled(tag, on: channel)
  }

  func consumerFailed(_ tag: Name, of queue: Name, on channel: Channel) {
    guard client.wantsCancelNotify else {
      // Who cannot be told of the consumer is told of the connection, unless that ends anyway.
      if !isReleasing { fail(.messageUnreadable(queue: queue)) }
      return
    }
    consumerCancelled(tag, on: channel)
  }

  func confirmed(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {
    send(.basicAck(.init(deliveryTag: sequence, multiple: isMultiple)), on: channel.number)
  }

  func refused(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {
    send(
      .basicNack(.init(deliveryTag: sequence, multiple: isMultiple, requeue: false)),
      on: channel.number)
  }

  func returned(
    names: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer, in block: UInt32?, on channel: Channel
  ) {
    let code = PeerError.noRoute
    let text = Name(code.text)
    out.append(Frame.method)
    out.append(channel.number)
    out.append(UInt32(4 + 2 + 1 + text.bytes.count + names.count))
    out.append(BasicReturn.id.classID)
    out.append(BasicReturn.id.methodID)
    out.append(code.code.rawValue)
    out.append(text)
    out.append(names)
    out.append(Frame.end)
    appendContent(on: channel.number, properties, body, in: block)
    markDirty()
  }
}
