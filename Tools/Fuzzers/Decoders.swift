import AMQP
import Base

/// Feeds the decoders of AMQP: the first byte says which one. What is decoded must encode to bytes
/// that decode and encode to the same again. `Tools/fuzz decoders` builds and runs it.
@c(LLVMFuzzerTestOneInput)
public func fuzzDecoders(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  guard count > 0, let start else { return 0 }
  let bytes = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
  switch start[0] % 4 {
  case 0: fuzzMethod(bytes)
  case 1: fuzzTable(bytes) { (reader) throws(MalformedInput) in try reader.fieldTable() }
  case 2: fuzzTable(bytes) { (reader) throws(MalformedInput) in try reader.bareFieldTable() }
  default: fuzzProperties(bytes)
  }
  return 0
}

/// Class and method, and the arguments.
private func fuzzMethod(_ bytes: [UInt8]) {
  guard let method = decodedMethod(bytes) else { return }
  let encoded = encodedMethod(method)
  guard let again = decodedMethod(encoded) else {
    invariantFailed("\(method.id) does not decode once it was encoded")
  }
  invariant(encodedMethod(again) == encoded, "\(method.id) changes when it is encoded again")
}

private func decodedMethod(_ bytes: [UInt8]) -> Method? {
  try? { () throws(MalformedInput) in
    var reader = ByteReader(bytes.span.bytes)
    let id = MethodID(classID: try reader.u16(), methodID: try reader.u16())
    return try Method.decode(id, from: &reader)
  }()
}

private func encodedMethod(_ method: Method) -> [UInt8] {
  var buffer = ByteBuffer()
  buffer.append(method, channel: 1)
  return Array(buffer.readable.dropFirst(Frame.headerSize).dropLast())
}

private func fuzzTable(
  _ bytes: [UInt8], _ read: (inout ByteReader) throws(MalformedInput) -> FieldTable
) {
  var reader = ByteReader(bytes.span.bytes)
  guard let table = try? read(&reader) else { return }
  let encoded = encodedTable(table)
  var second = ByteReader(encoded.span.bytes)
  guard let again = try? second.fieldTable(), second.isAtEnd else {
    invariantFailed("a table does not decode once it was encoded")
  }
  invariant(encodedTable(again) == encoded, "a table changes when it is encoded again")
}

private func encodedTable(_ table: FieldTable) -> [UInt8] {
  var buffer = ByteBuffer()
  buffer.append(table)
  return Array(buffer.readable)
}

/// The block that the broker walks must agree with the whole that clients decode.
private func fuzzProperties(_ bytes: [UInt8]) {
  let block = try? PropertyBlock(bytes.span.bytes)
  var reader = ByteReader(bytes.span.bytes)
  guard let properties = try? BasicProperties(from: &reader) else {
    // The block does not look into the headers; nothing else may be wrong.
    invariant(block == nil || block?.headers.isEmpty == false, "a block hides an error")
    return
  }
  invariant((block != nil) == reader.isAtEnd, "block and properties end at different places")
  guard let block else { return }
  invariant(block.isPersistent == (properties.deliveryMode == 2), "another delivery mode")
  invariant(Name(Array(bytes[block.userID])) == properties.userID ?? "", "another user")
  invariant(Name(Array(bytes[block.replyTo])) == properties.replyTo ?? "", "another reply-to")
  invariant(
    Name(Array(bytes[block.expiration])) == properties.expiration ?? "", "another expiration")
}
