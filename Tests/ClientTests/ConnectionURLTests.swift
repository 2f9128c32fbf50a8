import Client
import Testing

@Suite struct ConnectionURLTests {
  @Test func everythingThatIsMissingHasADefault() throws {
    #expect(try ConnectionURL("amqp://") == ConnectionURL())
    #expect(try ConnectionURL("amqp://localhost") == ConnectionURL())
    #expect(try ConnectionURL("amqp://:@:/") == with { $0.password = "" })
    #expect(try ConnectionURL("AMQP://localhost:5672") == ConnectionURL())
  }

  @Test func everyPartIsRead() throws {
    let url = try ConnectionURL(
      "amqp://ann:secret@broker.example:5673/orders?heartbeat=10&connection_timeout=2500"
        + "&frame_max=65536&channel_max=7&unknown=1")
    #expect(url.user == "ann")
    #expect(url.password == "secret")
    #expect(url.host == "broker.example")
    #expect(url.port == 5673)
    #expect(url.virtualHost == "orders")
    #expect(url.heartbeatSeconds == 10)
    #expect(url.connectionTimeoutMilliseconds == 2500)
    #expect(url.frameMax == 65_536)
    #expect(url.channelMax == 7)
  }

  @Test(arguments: [
    ("amqp://host", "/"), ("amqp://host/", "/"), ("amqp://host/%2f", "/"), ("amqp://host/a", "a"),
    ("amqp://host/a/b", "a/b"), ("amqp://host/%C3%A9?heartbeat=1", "é"),
  ])
  func thePathIsTheVirtualHost(text: String, expected: String) throws {
    #expect(try ConnectionURL(text).virtualHost == expected)
  }

  @Test func loginsMayBePercentEncoded() throws {
    let url = try ConnectionURL("amqp://a%40b:p%3a%2F%25@host")
    #expect(url.user == "a@b")
    #expect(url.password == "p:/%")
    #expect(url.host == "host")
  }

  @Test func anIPv6AddressStandsInBrackets() throws {
    let url = try ConnectionURL("amqp://[::1]:1234/v")
    #expect(url.host == "::1")
    #expect(url.port == 1234)
    #expect(try ConnectionURL("amqp://[fe80::1]").port == 5672)
    #expect(url.description == "amqp://guest@[::1]:1234/v")
  }

  @Test(arguments: [
    "", "localhost", "localhost:5672", "http://host", "amqp:/host", "amqp://host:0",
    "amqp://host:65536", "amqp://host:x", "amqp://[::1", "amqp://[::1]x", "amqp://h%", "amqp://h%2",
    "amqp://h%zz", "amqp://%ff@host", "amqp://host?heartbeat=x", "amqp://host?heartbeat=-1",
    "amqp://host?heartbeat=65536", "amqp://host?channel_max",
  ])
  func nonsenseIsRefused(text: String) {
    #expect(throws: ClientError.self) { try ConnectionURL(text) }
  }

  @Test func tlsIsSaidToBeMissing() {
    #expect(throws: ClientError.unsupported("TLS is not supported yet: use an amqp:// URL")) {
      try ConnectionURL("amqps://host")
    }
  }

  @Test func theDescriptionHasNoPassword() throws {
    let url = try ConnectionURL("amqp://ann:secret@host/a%2fb?heartbeat=3")
    #expect(url.description == "amqp://ann@host:5672/a%2fb")
    #expect(try ConnectionURL(url.description).virtualHost == "a/b")
  }

  private func with(_ change: (inout ConnectionURL) -> Void) -> ConnectionURL {
    var url = ConnectionURL()
    change(&url)
    return url
  }
}
