import Client
import Testing

@Suite(.needsBroker, .timeLimit(.minutes(1))) struct ChannelTests {
  @Test func declarationsSayWhatTheBrokerKnows() async throws {
    try await Broker.withQueue { channel, queue in
      try await channel.publishConfirmed("one", key: queue)
      try await channel.publishConfirmed("two", key: queue)
      let state = try await channel.declareQueue(queue, passive: true)
      #expect(state.name == queue)
      #expect(state.messageCount == 2)
      #expect(state.consumerCount == 0)
      #expect(try await channel.purgeQueue(queue) == 2)
      #expect(try await channel.deleteQueue(queue) == 0)
    }
  }

  @Test func bindingsRouteUntilTheyAreTakenBack() async throws {
    try await Broker.withQueue { channel, queue in
      let first: Name = "martlet.test.first"
      let second: Name = "martlet.test.second"
      try await channel.declareExchange(first, type: "topic", autoDelete: true)
      try await channel.declareExchange(second, type: "fanout", autoDelete: true)
      try await channel.bindExchange(second, to: first, key: "a.#")
      try await channel.bindQueue(queue, to: second)
      try await channel.publishConfirmed("x", to: first, key: "a.b")
      try await channel.unbindExchange(second, from: first, key: "a.#")
      let got = try #require(try await channel.get(queue))
      #expect(got.delivery.message.exchange == first)
      #expect(got.delivery.message.routingKey == "a.b")
      #expect(got.remaining == 0)
      try got.delivery.ack()
      try await channel.deleteExchange(first)
      try await channel.deleteExchange(second)
    }
  }

  @Test func propertiesAndHeadersTravelUnchanged() async throws {
    try await Broker.withQueue { channel, queue in
      var properties = BasicProperties()
      properties.contentType = "text/plain"
      properties.correlationID = "c-1"
      properties.priority = 4
      properties.timestamp = 1_700_000_000
      properties.headers = [
        "flag": .bool(true), "count": .int64(-5), "text": .string("ü"),
        "list": .array([.int32(1), .void]), "inner": .table(["a": .double(0.5)]),
      ]
      try await channel.publishConfirmed([0, 255], key: queue, properties: properties)
      let got = try #require(try await channel.get(queue, withoutAck: true))
      #expect(got.delivery.message.properties == properties)
      #expect(got.delivery.body == [0, 255])
      #expect(got.delivery.text == nil)
    }
  }

  @Test(arguments: [0, 1, 131_064, 131_065, 1_000_000])
  func bodiesOfAnySizeArriveWhole(size: Int) async throws {
    try await Broker.withQueue { channel, queue in
      let body = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      try await channel.publishConfirmed(body, key: queue)
      let got = try #require(try await channel.get(queue, withoutAck: true))
      #expect(got.delivery.body == body)
    }
  }

  @Test func anEmptyQueueGivesNothing() async throws {
    try await Broker.withQueue { channel, queue in
      let got = try await channel.get(queue)
      #expect(got == nil)
    }
  }

  @Test func aRefusalClosesTheChannelAndOnlyThat() async throws {
    try await Broker.connected { connection in
      let channel = try await connection.openChannel()
      let other = try await connection.openChannel()
      let queue = try await other.declareQueue(exclusive: true).name
      let consumer = try await channel.consume(queue)
      let expected = try await refusal(of: channel)
      await #expect(throws: expected) { try await consumer.next() }
      await #expect(throws: expected) { try await channel.publish("x", key: queue) }
      await #expect(throws: expected) { try await channel.close() }
      try await other.publishConfirmed("still here", key: queue)
      let third = try await connection.openChannel()
      #expect(third.number == channel.number)
      try await third.close()
    }
  }

  private func refusal(of channel: Channel) async throws -> ClientError {
    do throws(ClientError) {
      try await channel.declareQueue("martlet.test.missing", passive: true)
      throw .cancelled
    } catch {
      guard case .channelClosed(channel.number, let reason) = error else { throw error }
      #expect(reason.code == 404)
      #expect(reason.method == "queue.declare")
      return error
    }
  }

  @Test func whatIsPublishedOnAClosedChannelDoesNotHarmTheConnection() async throws {
    try await Broker.connected { connection in
      let channel = try await connection.openChannel()
      await #expect(throws: ClientError.self) {
        for _ in 0..<200_000 { try await channel.publish("x", to: "martlet.test.none", key: "") }
        try await channel.close()
      }
      let other = try await connection.openChannel()
      try await other.declareQueue(exclusive: true)
    }
  }

  @Test func closingSaysEverythingFirst() async throws {
    try await Broker.connected { connection in
      let other = try await connection.openChannel()
      let queue = try await other.declareQueue(exclusive: true).name
      let channel = try await connection.openChannel()
      for _ in 0..<1000 { try await channel.publish("x", key: queue) }
      try await channel.close()
      try await channel.close()
      await #expect(throws: ClientError.channelNotOpen) { try await channel.get(queue) }
      #expect(try await other.declareQueue(queue, passive: true).messageCount == 1000)
    }
  }

  @Test func transactionsTakeEffectAtCommit() async throws {
    try await Broker.withQueue { channel, queue in
      try await channel.beginTransactions()
      try await channel.publish("no", key: queue)
      try await channel.rollback()
      try await channel.publish("yes", key: queue)
      #expect(try await channel.get(queue)?.delivery.text == nil)
      try await channel.commit()
      #expect(try await channel.get(queue, withoutAck: true)?.delivery.text == "yes")
    }
  }
}
