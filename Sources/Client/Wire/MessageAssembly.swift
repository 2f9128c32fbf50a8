/// A message that comes in pieces: the method's arguments, then the header, then the body.
final class MessageAssembly {
  private(set) var kind = WireMessage.Kind.delivery
  private(set) var arguments: [UInt8] = []
  private(set) var properties: [UInt8] = []
  private(set) var body: [UInt8] = []
  /// What the header announced; nil before it came.
  private var bodySize: Int?

  /// Memory beyond this is not kept for the next message, nor taken on the mere word of a header.
  private static let keptSizeMax = 1 << 20

  var isWhole: Bool { bodySize == body.count }
  var isWorthKeeping: Bool { body.capacity <= Self.keptSizeMax }

  func begin(_ kind: WireMessage.Kind, _ arguments: RawSpan) {
    self.kind = kind
    self.arguments.removeAll(keepingCapacity: true)
    self.arguments.append(copying: arguments)
    properties.removeAll(keepingCapacity: true)
    body.removeAll(keepingCapacity: true)
    bodySize = nil
  }

  func header(_ payload: RawSpan) throws(ClientError) {
    guard bodySize == nil else { throw .protocolViolation("a second content header") }
    let size = try ContentHeader(payload).bodySize
    bodySize = size
    properties.append(copying: payload.extracting(ContentHeader.size..<payload.byteCount))
    body.reserveCapacity(min(size, Self.keptSizeMax))
  }

  func body(_ payload: RawSpan) throws(ClientError) {
    guard let bodySize else { throw .protocolViolation("a content body without its header") }
    guard payload.byteCount <= bodySize - body.count else {
      throw .protocolViolation("a body longer than its header said")
    }
    body.append(copying: payload)
  }
}

extension [UInt8] {
  fileprivate mutating func append(copying span: RawSpan) {
    span.withUnsafeBytes { append(contentsOf: $0) }
  }
}
