import AMQP
import Base
import Journal

/// A large body that a session has to send. It stays in its message's block until the socket takes it, so
/// that a slow reader has no copy of it, and many readers share one block.
struct OwedBody: BitwiseCopyable {
  let loan: BlockLoan
  let body: UnsafeRawBufferPointer
  let channel: UInt16
  /// Bytes of body in a frame.
  let payloadMax: Int
  /// What the session says by itself up to here goes before it, counted from the connection's beginning.
  let place: Int
  /// With its frames.
  let framedSize: Int

  init(
    _ body: UnsafeRawBufferPointer, loan: BlockLoan, channel: UInt16, frameMax: Int, place: Int
  ) {
    self.loan = loan
    self.body = body
    self.channel = channel
    self.place = place
    payloadMax = frameMax - Frame.overhead
    let frames = (body.count + payloadMax - 1) / payloadMax
    framedSize = body.count + frames * Frame.overhead
  }

  /// Writes its frames, from the byte `offset` of all of them on, as far as there is room. Returns how many
  /// bytes that were.
  func copy(from offset: Int, into room: UnsafeMutableRawBufferPointer) -> Int {
    let count = min(room.count, framedSize - offset)
    var done = 0
    while done < count {
      let (frame, within) = (offset + done).quotientAndRemainder(
        dividingBy: payloadMax + Frame.overhead)
      let start = frame * payloadMax
      let payload = min(payloadMax, body.count - start)
      let place = UnsafeMutableRawBufferPointer(rebasing: room[done..<count])
      if within < Frame.headerSize {
        place[0] = headerByte(within, of: payload)
        done += 1
      } else if within < Frame.headerSize + payload {
        let skipped = within - Frame.headerSize
        let size = min(payload - skipped, place.count)
        place.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: body[start + skipped..<start + skipped + size]))
        done += size
      } else {
        place[0] = Frame.end
        done += 1
      }
    }
    return done
  }

  private func headerByte(_ index: Int, of payload: Int) -> UInt8 {
    switch index {
    case 0: Frame.body
    case 1: UInt8(truncatingIfNeeded: channel >> 8)
    case 2: UInt8(truncatingIfNeeded: channel)
    default: UInt8(truncatingIfNeeded: payload >> (8 * (6 - index)))
    }
  }
}

/// The large bodies that a session has to send, in their order, and where they stand in what it says.
struct OwedBodies: ~Copyable {
  private var bodies = Ring<OwedBody>()
  /// Bytes of the first one's frames that were sent.
  private var sent = 0
  /// Bytes of their frames that were not.
  private(set) var byteCount = 0
  /// Bytes that the session has said by itself and that were sent.
  private var ownSent = 0

  var isEmpty: Bool { bodies.isEmpty }

  /// Goes behind what the session has said so far, of which `ownCount` bytes are not sent.
  mutating func append(
    _ body: UnsafeRawBufferPointer, loan: BlockLoan, channel: UInt16, frameMax: Int, ownCount: Int
  ) {
    let owed = OwedBody(
      body, loan: loan, channel: channel, frameMax: frameMax, place: ownSent + ownCount)
    bodies.append(owed)
    byteCount += owed.framedSize
  }

  /// How many of the session's own bytes go before the first body.
  var ownBefore: Int { bodies.first.map { $0.place - ownSent } ?? .max }

  /// The next part of the first body.
  func copy(into room: UnsafeMutableRawBufferPointer) -> Int {
    bodies[0].copy(from: sent, into: room)
  }

  mutating func ownWritten(_ count: Int) { ownSent += count }

  /// So much of the first body was sent. Returns its loan if that was all of it.
  mutating func written(_ count: Int) -> BlockLoan? {
    sent += count
    byteCount -= count
    guard sent == bodies[0].framedSize else { return nil }
    sent = 0
    return bodies.removeFirst().loan
  }

  /// Nothing of what is left will be sent. Returns a loan that is to be ended, until there is none.
  mutating func giveUp() -> BlockLoan? {
    guard let first = bodies.first else {
      bodies.removeAll()
      return nil
    }
    return written(first.framedSize - sent)
  }

  /// Appends all that is to be sent to `bytes`, own bytes and bodies in their order, without the first
  /// `skipped` bytes; for whoever looks on.
  func render(_ own: UnsafeRawBufferPointer, from skipped: Int, into bytes: inout [UInt8]) {
    var (skipped, ownDone) = (skipped, 0)
    func take(_ part: UnsafeRawBufferPointer) {
      let left = min(skipped, part.count)
      skipped -= left
      bytes += part[left...]
    }
    for index in 0..<bodies.count {
      let body = bodies[index]
      let before = body.place - ownSent
      take(UnsafeRawBufferPointer(rebasing: own[ownDone..<before]))
      ownDone = before
      let start = index == 0 ? sent : 0
      let frames = UnsafeMutableRawBufferPointer.allocate(
        byteCount: body.framedSize - start, alignment: 1)
      defer { frames.deallocate() }
      _ = body.copy(from: start, into: frames)
      take(UnsafeRawBufferPointer(frames))
    }
    take(UnsafeRawBufferPointer(rebasing: own[ownDone...]))
  }
}
