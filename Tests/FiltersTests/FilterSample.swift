import AMQP
import Base
import Testing

@testable import Filters

/// A message for filters.
struct FilterSample {
  private let names: [UInt8]
  private let properties: [UInt8]
  private let headers: Range<Int>
  private let body: [UInt8]

  init(
    exchange: Name = "events", key: Name = "a.b", _ properties: BasicProperties = .init(),
    body: [UInt8] = []
  ) {
    var names = ByteBuffer()
    names.append(exchange)
    names.append(key)
    var block = ByteBuffer()
    properties.encode(into: &block)
    self.init(names: Array(names.readable), properties: Array(block.readable), body: body)
  }

  init(headers: FieldTable, body: String = "") {
    var properties = BasicProperties()
    properties.headers = headers
    self.init(properties, body: Array(body.utf8))
  }

  /// Properties as bytes, which may be damaged.
  init(names: [UInt8], properties: [UInt8], body: [UInt8]) {
    self.names = names
    self.properties = properties
    headers = PropertyFlags.headers.place(in: properties.span.bytes) ?? 0..<0
    self.body = body
  }

  func fits(_ filter: Filter) -> (isTrue: Bool, steps: Int) {
    var steps = 0
    let message = FilteredMessage(
      names: names.span.bytes, properties: properties.span.bytes, headers: headers,
      body: body.span.bytes)
    let isTrue = filter.matches(message, steps: &steps)
    return (isTrue, steps)
  }

  func fits(_ text: String) throws -> Bool { try fits(Filter(text)).isTrue }

  /// True, false or nil for unknown, which a filter alone does not tell apart.
  func truth(_ text: String) throws -> Bool? {
    if try fits(text) { return true }
    if try fits("NOT (\(text))") { return false }
    #expect(try fits("(\(text)) IS NULL"), "\(text) is neither true, nor false, nor unknown")
    return nil
  }
}

extension Filter {
  convenience init(_ text: String) throws(FilterError) { try self.init(Array(text.utf8)) }
}
