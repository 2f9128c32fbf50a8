import AMQP
import Base
import IO

/// The methods as `Specs/Tables/methods.txt` has them: the codec is tested against its source, not
/// against itself.
public enum MethodTable {
  public static let methods: [TableMethod] = {
    let path = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    do throws(SystemError) {
      let bytes = try WholeFile.read("/\(path)/Specs/Tables/methods.txt", bytesMax: 1 << 20)
      return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        .filter { !$0.hasPrefix("#") }.map(TableMethod.init)
    } catch {
      invariantFailed("the table of methods cannot be read: \(error)")
    }
  }()
}

/// A line of the table, such as
/// `basic.get 60.70 client : reserved-1 short, queue shortstr, no-ack bit`.
public struct TableMethod: CustomStringConvertible, Sendable {
  public struct Field: Sendable {
    public let name: String
    let type: String

    public var isReserved: Bool { name.hasPrefix("reserved") }
  }

  public let name: String
  public let id: MethodID
  public let sender: String
  public let fields: [Field]

  init(line: Substring) {
    let halves = line.split(separator: ":", maxSplits: 1)
    let words = halves[0].split(separator: " ")
    let numbers = words[1].split(separator: ".").compactMap { UInt16($0) }
    name = String(words[0])
    id = MethodID(classID: numbers[0], methodID: numbers[1])
    sender = String(words[2])
    let fields = halves.count > 1 ? halves[1].split(separator: ",") : []
    self.fields = fields.compactMap { field in
      let words = field.split(separator: " ")
      return words.isEmpty ? nil : Field(name: String(words[0]), type: String(words[1]))
    }
  }

  public var description: String { name }

  /// Random arguments as they are on the wire. What is reserved is zero, or as random as the rest;
  /// the rest is the same either way.
  public func arguments(
    _ random: inout SeededGenerator, reservedIsZero: Bool = true
  ) -> [UInt8] {
    var reserved = random
    var buffer = ByteBuffer()
    var bits: [Bool] = []
    for field in fields {
      if field.type != "bit" { Self.flush(&bits, into: &buffer) }
      if field.isReserved {
        append(field.type, &bits, &buffer, &reserved, isZero: reservedIsZero)
      } else {
        append(field.type, &bits, &buffer, &random, isZero: false)
      }
    }
    Self.flush(&bits, into: &buffer)
    return Array(buffer.readable)
  }

  /// Neighbouring bits share an octet, the first in its lowest bit.
  private static func flush(_ bits: inout [Bool], into buffer: inout ByteBuffer) {
    guard !bits.isEmpty else { return }
    buffer.append(bits.reversed().reduce(UInt8(0)) { $0 << 1 | ($1 ? 1 : 0) })
    bits = []
  }

  private func append(
    _ type: String, _ bits: inout [Bool], _ buffer: inout ByteBuffer,
    _ random: inout SeededGenerator, isZero: Bool
  ) {
    switch type {
    case "bit": bits.append(isZero ? false : random.flag())
    case "octet": buffer.append(isZero ? 0 : random.integer(UInt8.self))
    case "short": buffer.append(isZero ? 0 : random.integer(UInt16.self))
    case "long": buffer.append(isZero ? 0 : random.integer(UInt32.self))
    case "longlong": buffer.append(isZero ? 0 : random.integer(UInt64.self))
    case "shortstr": buffer.append(isZero ? "" : random.name())
    case "longstr": buffer.appendLong(isZero ? [] : random.bytes(upTo: 1000))
    case "table": buffer.append(isZero ? FieldTable() : random.fieldTable())
    default: invariantFailed("the table of methods has a field of type \(type)")
    }
  }
}
