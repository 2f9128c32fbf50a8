import AMQP
import Base
import Broker

/// A client that published while the broker takes no messages waits with all that it asks. Its own
/// end does not: a close that stands behind few bytes is answered, and what it published before is
/// taken, since nobody would send it again.
extension Session {
  /// So much passes for the sake of closes until the client is no longer blocked.
  static let passBytesMax = 64 << 10

  /// Whether more is to be read when `kept` bytes were read and not taken.
  func wantsInput(kept: Int) -> Bool {
    switch pause {
    case .none: true
    case .untilDurable, .untilNextTurn: false
    case .blocked: kept < passBytesLeft
    }
  }

  /// Takes what comes with a close that is found among `bytes`; returns how much that was.
  func receiveBlocked(_ bytes: RawSpan) -> Int {
    var offset = 0
    while pause == .blocked, state == .open {
      let rest = bytes.extracting(offset..<bytes.byteCount)
      guard let count = bytesWithClose(rest) else { break }
      passBytesLeft -= count
      bytesLookedAt = 0
      pause = .none
      let taken = pass(rest, count)
      offset += taken
      if pause == .none, state == .open { pause = .blocked }
      if taken == 0 { break }
    }
    return offset
  }

  /// Takes the first `count` bytes, which are whole frames, in the smallest pieces that are taken: a frame,
  /// or a message that is looked at only when all of it is there.
  private func pass(_ bytes: RawSpan, _ count: Int) -> Int {
    isPassing = true
    defer { isPassing = false }
    var offset = 0
    var end = 0
    while end < count, state == .open, pause == .none {
      end += Int(bytes.bigEndian32(end + 3)) + Frame.overhead
      let taken = receive(bytes.extracting(offset..<end))
      if taken == 0 { continue }
      offset += taken
      host?.didPass(untaken: bytes.byteCount - offset)
    }
    return offset
  }

  /// How far it is to the end of the first close; nil if there is none within what may pass.
  private func bytesWithClose(_ bytes: RawSpan) -> Int? {
    while bytes.byteCount - bytesLookedAt >= Frame.headerSize + 4 {
      let place = bytesLookedAt
      let size = Int(bytes.bigEndian32(place + 3))
      let end = place + Frame.overhead + size
      guard size <= frameMax, end <= bytes.byteCount, end <= passBytesLeft else { return nil }
      if bytes.byte(place) == Frame.method, size >= 4 {
        let id = MethodID(
          classID: bytes.bigEndian16(place + 7), methodID: bytes.bigEndian16(place + 9))
        if id == ConnectionClose.id || id == ChannelClose.id { return end }
      }
      bytesLookedAt = end
    }
    return nil
  }
}
