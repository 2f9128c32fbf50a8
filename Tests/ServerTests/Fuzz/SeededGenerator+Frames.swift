import AMQP
import Arbitrary
import Base

extension SeededGenerator {
  /// Damages what a client sends in one of the ways in which clients, proxies and attackers do.
  /// `history` is what it sent before.
  mutating func mutate(_ frames: inout [[UInt8]], history: [[UInt8]]) {
    frames.removeAll(where: \.isEmpty)
    guard !frames.isEmpty else { return }
    let place = number(0...frames.count - 1)
    switch number(0...13) {
    case 0, 1, 2: mutate(&frames[place])
    case 3: frames.insert(frames[place], at: number(0...frames.count))
    case 4: frames.swapAt(place, number(0...frames.count - 1))
    case 5: frames.remove(at: place)
    case 6: overwrite(&frames[place], at: 1, with: choose([0, 1, 2, 3, 2047, 2048, .max]))
    case 7: frames[place][0] = choose([0, 1, 2, 3, 4, 8, 255])
    case 8: mutateSize(&frames[place])
    case 9: frames[place][frames[place].count - 1] = integer()
    case 10: mutateID(&frames[place])
    case 11: mutatePayload(&frames[place])
    case 12: frames.insert(history.isEmpty ? bytes(20) : choose(history), at: place)
    default: frames.insert(choose([bytes(upTo: 300), Frame.protocolHeader]), at: place)
    }
  }

  private mutating func mutateSize(_ frame: inout [UInt8]) {
    guard frame.count >= Frame.headerSize else { return }
    let size = UInt32(max(0, frame.count - Frame.overhead))
    let sizes = [0, size &- 1, size + 1, size + 8, 4088, 4096, 131_072, 131_073, 1 << 31, .max]
    overwrite(&frame, at: 3, with: choose(sizes))
  }

  /// Arguments of one method as those of another.
  private mutating func mutateID(_ frame: inout [UInt8]) {
    let id = choose(MethodTable.methods).id
    overwrite(&frame, at: 7, with: UInt32(id.classID) << 16 | UInt32(id.methodID))
  }

  /// The frame stays one: its size agrees with what the payload became.
  private mutating func mutatePayload(_ frame: inout [UInt8]) {
    guard frame.count > Frame.overhead else { return }
    var payload = Array(frame[Frame.headerSize..<frame.count - 1])
    mutate(&payload)
    frame.replaceSubrange(Frame.headerSize..<frame.count - 1, with: payload)
    overwrite(&frame, at: 3, with: UInt32(payload.count))
  }

  private func overwrite<Value: FixedWidthInteger>(
    _ frame: inout [UInt8], at place: Int, with value: Value
  ) {
    let size = MemoryLayout<Value>.size
    guard frame.count >= place + size else { return }
    withUnsafeBytes(of: value.bigEndian) { frame.replaceSubrange(place..<place + size, with: $0) }
  }

  private mutating func overwrite(_ frame: inout [UInt8], at place: Int, with value: UInt16) {
    guard frame.count >= place + 2 else { return }
    frame[place] = UInt8(value >> 8)
    frame[place + 1] = UInt8(value & 255)
  }

  /// The bytes in pieces, as reads may bring them.
  mutating func cut(_ bytes: [UInt8]) -> [[UInt8]] {
    guard !oneIn(3) else { return [bytes] }
    var pieces: [[UInt8]] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      let piece = rest.prefix(number(1...choose([1, 10, 100, 10_000])))
      pieces.append(Array(piece))
      rest = rest.dropFirst(piece.count)
    }
    return pieces
  }
}
