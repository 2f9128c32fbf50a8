import AMQP
import Base
import Testing

@testable import Client
@testable import Server

/// What clients can make the broker keep before they have logged in.
@Suite struct UnprovenClientTests {
  /// The beginning of a start-ok of `size` bytes, of which `sent` come.
  private func unfinished(_ size: Int, sent: Int) -> [UInt8] {
    let head: [UInt8] = [Frame.method, 0, 0] + [24, 16, 8, 0].map { UInt8(size >> $0 & 0xFF) }
    return Frame.protocolHeader + head + [UInt8](repeating: 1, count: sent)
  }

  @Test func allOfThemTogetherHaveALimitAndTheOldestGoFirst() throws {
    let loop = try TestLoop()
    let limit = loop.loop.settings.unprovenBytesMax
    var clients: [TestClient] = []
    var peak = 0
    for _ in 0..<600 {
      let client = loop.connect()
      client.send(unfinished(60_000, sent: 59_000))
      clients.append(client)
      peak = max(peak, loop.loop.unprovenBytes)
    }
    #expect(peak <= limit)
    let isClosed = clients.map { $0.session.state == .closed }
    let left = isClosed.filter { !$0 }.count
    #expect(left > 50 && left * 59_000 <= limit)
    #expect(isClosed == clients.indices.map { $0 < 600 - left })
    // They go, and so does what they kept.
    for client in clients { loop.drop(client) }
    #expect(loop.loop.unprovenBytes == 0)
  }

  /// A login with a long token gets through a crowd of those who never finish theirs.
  @Test func whoFinishesGetsThrough() throws {
    let loop = try TestLoop()
    let crowd = (0..<300).map { _ in loop.connect() }
    for client in crowd { client.send(unfinished(60_000, sent: 59_000)) }
    let client = loop.connect()
    _ = try client.exchange(Frame.protocolHeader)
    let token = FieldTable([
      .init(name: "token", value: .string([UInt8](repeating: 7, count: 40_000)))
    ])
    let login = Wire.method(
      .connectionStartOk(
        ConnectionStartOk(
          clientProperties: token, mechanism: "PLAIN", response: Array("\0guest\0guest".utf8),
          locale: "en_US")), on: 0)
    client.send(Array(login[..<30_000]))
    #expect(client.connection.unprovenBytes >= 30_000)
    for other in (0..<50).map({ _ in loop.connect() }) {
      other.send(unfinished(60_000, sent: 59_000))
    }
    let events = try client.exchange(Array(login[30_000...]))
    guard case .method(.connectionTune, 0)? = events.first else { return #expect(events == []) }
    _ = try client.exchange(
      Wire.method(.connectionTuneOk(Wire.tuneOK()), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0))
    #expect(client.session.state == .open)
    #expect(client.connection.unprovenBytes == 0)
  }

  @Test func whoIsInKeepsItsPlaceWhateverOthersDo() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    // Half a frame, which counts no more against the limit of strangers.
    client.send([Frame.method, 0, 1, 0, 0, 0xF0, 0] + [UInt8](repeating: 1, count: 50_000))
    #expect(loop.loop.unprovenBytes == 0)
    for other in (0..<300).map({ _ in loop.connect() }) {
      other.send(unfinished(60_000, sent: 59_000))
    }
    #expect(client.session.state == .open)
  }
}

@Suite struct ClientRoomTests {
  @Test(arguments: [
    (100_000, 1_048_576, 100_000, 100_064), (5, 1024, 5, 69), (100_000, 1024, 896, 960),
    (100_000, 104, 30, 40), (3, 68, 3, 4),
  ])
  func asManyAsFit(connections: Int, descriptors: Int, clients: Int, sockets: Int) throws {
    let room = try #require(
      ClientRoom(connectionsMax: connections, descriptorLimit: descriptors))
    #expect(room.clientsMax == clients)
    #expect(room.socketsMax == sockets)
    #expect(room.socketsMax <= descriptors - ClientRoom.reserve)
    #expect(room.reason.contains(clients < connections ? "\(descriptors)" : "\(connections)"))
  }

  @Test(arguments: [0, 3, 64, 65, 73])
  func aHandfulIsTheLeast(descriptors: Int) {
    #expect(ClientRoom(connectionsMax: 100_000, descriptorLimit: descriptors) == nil)
  }

  @Test func theLeastIsEnough() {
    let least = ClientRoom.descriptorsMin
    let room = ClientRoom(connectionsMax: 100_000, descriptorLimit: least)
    #expect(room?.clientsMax == ClientRoom.clientsMin)
    #expect(ClientRoom(connectionsMax: 100_000, descriptorLimit: least - 1) == nil)
  }
}
