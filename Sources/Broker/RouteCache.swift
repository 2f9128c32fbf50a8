import Base

/// Routes by exchange and key, emptied whenever something changes. Those that were not asked for
/// lately make room for others: a half that is full becomes the old half, and the one before goes.
struct RouteCache: ~Copyable {
  private struct Half: ~Copyable {
    private var table = NameTable()
    private var routes: [Route] = []
    private(set) var bytes = 0

    var count: Int { routes.count }

    func find(_ names: RawSpan) -> Route? {
      names.withUnsafeBytes { table.find($0) }.map { routes[Int($0)] }
    }

    mutating func insert(_ names: RawSpan, _ route: Route, bytes: Int) {
      table.insert(names.withUnsafeBytes { Array($0) }, Int32(routes.count))
      routes.append(route)
      self.bytes += bytes
    }
  }

  private var new = Half()
  private var old = Half()

  /// Of each half. A route that has more is the only one of its half.
  private static let bytesMax = 16 << 20
  private static let countMax = 8192
  /// What an entry takes besides its names and its route.
  private static let entryBytes = 96

  /// What all routes take.
  var bytes: Int { new.bytes + old.bytes }

  /// The route of exchange and key, as they are on the wire, or the one of the exchange for any key.
  mutating func find(_ names: RawSpan) -> Route? {
    if let route = new.find(names) { return route }
    let exchange = Self.exchange(names)
    if let route = new.find(exchange) { return route }
    if let route = old.find(names) ?? old.find(exchange) {
      insert(names, route)
      return route
    }
    return nil
  }

  mutating func insert(_ names: RawSpan, _ route: Route) {
    let names = route.isKeyless ? Self.exchange(names) : names
    let bytes = Self.entryBytes + names.byteCount + route.bytes
    if new.count == Self.countMax || new.count > 0 && new.bytes + bytes > Self.bytesMax {
      old = Half()
      swap(&new, &old)
    }
    new.insert(names, route, bytes: bytes)
  }

  mutating func removeAll() {
    if new.count > 0 { new = Half() }
    if old.count > 0 { old = Half() }
  }

  @_lifetime(copy names)
  private static func exchange(_ names: RawSpan) -> RawSpan {
    names.extracting(0..<1 + Int(names.unsafeLoad(fromByteOffset: 0, as: UInt8.self)))
  }
}
