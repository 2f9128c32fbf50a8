import Base

/// What a filter looks at, as it is on the wire.
public struct FilteredMessage: ~Escapable {
  /// Exchange and routing key, each with its length in front.
  let names: RawSpan
  /// Flags and values.
  let properties: RawSpan
  /// Where the properties have the table of headers, with its length; empty if there is none.
  let headers: Range<Int>
  let body: RawSpan

  /// The table of headers with its length, or nothing.
  public var headerTable: RawSpan {
    @_lifetime(copy self)
    get { properties.extracting(headers) }
  }

  /// The flags and values of all properties.
  public var propertyBlock: RawSpan {
    @_lifetime(copy self)
    get { properties }
  }

  @_lifetime(copy names, copy properties, copy body)
  public init(names: RawSpan, properties: RawSpan, headers: Range<Int>, body: RawSpan) {
    self.names = names
    self.properties = properties
    self.headers = headers
    self.body = body
  }
}
