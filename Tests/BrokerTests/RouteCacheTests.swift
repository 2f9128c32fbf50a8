import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct RouteCacheTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
  }

  private var vhost: VirtualHost { broker.vhost }

  private func names(_ exchange: Name, _ key: Name) -> [UInt8] {
    [UInt8(exchange.bytes.count)] + exchange.bytes + [UInt8(key.bytes.count)] + key.bytes
  }

  private func route(_ exchange: Name, _ key: Name) throws -> Route {
    try vhost.cachedRoute(names(exchange, key).span.bytes)
  }

  private func bindWide(_ type: Name, _ count: Int) throws {
    try vhost.declare(exchange: "x", type)
    for number in 0..<count {
      try channel.declare(Name("q\(number)"))
      try channel.bind(Name("q\(number)"), to: "x", key: "#")
    }
  }

  @Test func whateverKeysAFanoutSeesItsRouteIsKeptOnce() throws {
    try bindWide("fanout", 2000)
    for number in 0..<1000 { #expect(try route("x", Name("\(number)")).count == 2000) }
    #expect(try route("x", "a") === route("x", "b"))
    #expect(vhost.routeBytes < 64_000)
  }

  @Test func wideRoutesOfManyKeysStayWithinTheLimit() throws {
    try bindWide("topic", 2000)
    var most = 0
    for number in 0..<1500 {
      #expect(try route("x", Name("\(number)")).count == 2000)
      most = max(most, vhost.routeBytes)
    }
    #expect(most > 16 << 20)
    #expect(most <= 2 * (16 << 20))
    // What was asked for lately is still there.
    let last = try route("x", "1499")
    #expect(try route("x", "1499") === last)
  }

  @Test func aRouteThatIsUsedStaysWhileOthersComeAndGo() throws {
    try channel.declare("q")
    let kept = try route("", "q")
    for number in 0..<40_000 {
      _ = try route("", Name("\(number)"))
      if number.isMultiple(of: 1000) { #expect(try route("", "q") === kept) }
    }
    #expect(vhost.routeBytes < 8 << 20)
  }

  @Test func anyChangeDropsAllRoutes() throws {
    try bindWide("fanout", 3)
    #expect(try route("x", "a").count == 3)
    #expect(vhost.routeBytes > 0)
    try channel.delete("q1")
    #expect(vhost.routeBytes == 0)
    #expect(try route("x", "a").count == 2)
    try vhost.declare(exchange: "y", "direct")
    try vhost.bind(exchange: "y", to: "x")
    try channel.bind("q2", to: "y", key: "k")
    try channel.unbind("q2", from: "x", key: "#")
    #expect(try route("x", "k").count == 2)
    #expect(try route("x", "l").count == 1)
    try channel.unbind("q0", from: "x", key: "#")
    #expect(try route("x", "k").count == 1)
    #expect(try route("x", "l").count == 0)
  }
}
