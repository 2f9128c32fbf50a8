import Client
import Testing

@Suite(.needsBroker, .timeLimit(.minutes(1))) struct PublishTests {
  @Test func manyAreConfirmedThroughASmallWindow() async throws {
    try await Broker.withQueue { channel, queue in
      try await channel.enableConfirms(window: 10)
      for number in 0..<5000 {
        try await channel.publish("\(number)", key: queue)
        #expect(channel.unconfirmedCount <= 10)
      }
      try await channel.waitForConfirms()
      #expect(channel.unconfirmedCount == 0)
      #expect(try await channel.declareQueue(queue, passive: true).messageCount == 5000)
    }
  }

  @Test func confirmationsCanBeAwaitedInAnyOrder() async throws {
    try await Broker.withQueue { channel, queue in
      var confirmations: [PublishConfirmation] = []
      for number in 0..<100 {
        confirmations.append(try await channel.publishTracked([UInt8(number)], key: queue))
      }
      for confirmation in confirmations.reversed() { try await confirmation.value() }
      try await confirmations[0].value()
    }
  }

  @Test func mandatoryMessagesComeBack() async throws {
    try await Broker.withQueue { channel, queue in
      let returned = channel.returnedMessages
      try await channel.publishConfirmed("found", key: queue, mandatory: true)
      await #expect(throws: ClientError.returned(code: 312, reason: "NO_ROUTE")) {
        try await channel.publishConfirmed("lost", key: "martlet.test.nowhere", mandatory: true)
      }
      try await channel.publishConfirmed("found again", key: queue, mandatory: true)
      try await channel.close()
      let messages = await returned.reduce(into: []) { $0.append($1) }
      #expect(messages.map(\.message.text) == ["lost"])
      #expect(messages.first?.code == 312)
    }
  }

  @Test func refusedMessagesAreCounted() async throws {
    try await Broker.connected { connection in
      let channel = try await connection.openChannel()
      let queue = try await channel.declareQueue(
        exclusive: true,
        arguments: ["x-max-length": .int32(1), "x-overflow": .string("reject-publish")])
      try await channel.publishConfirmed("first", key: queue.name)
      await #expect(throws: ClientError.refused(count: 1)) {
        for _ in 0..<5 { try await channel.publishConfirmed("more", key: queue.name) }
      }
      for _ in 0..<20 { try await channel.publish("more", key: queue.name) }
      await #expect(throws: ClientError.self) { try await channel.waitForConfirms() }
      try await channel.waitForConfirms()
    }
  }

  @Test func manyTasksShareAChannel() async throws {
    try await Broker.withQueue { channel, queue in
      try await channel.enableConfirms(window: 100)
      try await withThrowingTaskGroup { group in
        for _ in 0..<8 {
          group.addTask {
            for _ in 0..<2000 { try await channel.publish("x", key: queue) }
          }
        }
        try await group.waitForAll()
      }
      try await channel.waitForConfirms()
      #expect(try await channel.purgeQueue(queue) == 16_000)
    }
  }
}
