import Client
import Testing

@Suite(.needsBroker, .timeLimit(.minutes(1))) struct ConsumerTests {
  @Test func deliveriesComeInOrder() async throws {
    try await Broker.withQueue { channel, queue in
      let consumer = try await channel.consume(queue, prefetch: 10)
      for number in 0..<3000 { try await channel.publish("\(number)", key: queue) }
      var next = 0
      for try await delivery in consumer {
        #expect(delivery.text == "\(next)")
        #expect(!delivery.isRedelivered)
        try delivery.ack()
        next += 1
        if next == 3000 { break }
      }
      try await consumer.cancel()
      #expect(try await consumer.next()?.text == nil)
      #expect(try await channel.purgeQueue(queue) == 0)
    }
  }

  @Test func theBufferHoldsNoMoreThanThePrefetch() async throws {
    try await Broker.withQueue { channel, queue in
      for number in 0..<100 { try await channel.publish("\(number)", key: queue) }
      let consumer = try await channel.consume(queue, prefetch: 7)
      let first = try #require(try await consumer.next())
      try await consumer.cancel()
      var buffered = 0
      while consumer.nextIfReady() != nil { buffered += 1 }
      #expect(buffered == 6)
      #expect(try await channel.declareQueue(queue, passive: true).messageCount == 93)
      try first.nack(requeue: true)
      try await channel.recover()
      #expect(try await channel.declareQueue(queue, passive: true).messageCount == 100)
    }
  }

  @Test func whatIsGivenBackIsMarkedAsRedelivered() async throws {
    try await Broker.withQueue { channel, queue in
      try await channel.publish("x", key: queue)
      let consumer = try await channel.consume(queue)
      let first = try #require(try await consumer.next())
      #expect(!first.isRedelivered)
      try first.reject(requeue: true)
      let second = try #require(try await consumer.next())
      #expect(second.isRedelivered)
      try second.nack(requeue: false)
      try await consumer.cancel()
      #expect(try await channel.get(queue)?.delivery.text == nil)
    }
  }

  @Test func deletingTheQueueEndsTheConsumer() async throws {
    try await Broker.withQueue { channel, queue in
      let consumer = try await channel.consume(queue, tag: "mine")
      let next = Task { try await consumer.next() }
      try await channel.deleteQueue(queue)
      await #expect(throws: ClientError.consumerCancelled("mine")) { try await next.value }
      #expect(try await consumer.next()?.text == nil)
    }
  }

  @Test func cancellingTheTaskEndsTheWait() async throws {
    try await Broker.withQueue { channel, queue in
      let consumer = try await channel.consume(queue)
      let task = Task { try await consumer.next() }
      task.cancel()
      await #expect(throws: ClientError.cancelled) { try await task.value }
      try await channel.publish("for the next", key: queue)
      #expect(try await consumer.next()?.text == "for the next")
    }
  }

  @Test func workersShareTheDeliveries() async throws {
    try await Broker.withQueue { channel, queue in
      let consumer = try await channel.consume(queue)
      let total = 2000
      let counts = try await withThrowingTaskGroup(of: Int.self) { group in
        for _ in 0..<4 {
          group.addTask {
            var count = 0
            for try await delivery in consumer {
              count += 1
              try delivery.ack()
            }
            return count
          }
        }
        for _ in 0..<total { try await channel.publish("x", key: queue) }
        while try await channel.declareQueue(queue, passive: true).messageCount > 0 {}
        try await consumer.cancel()
        return try await group.reduce(into: []) { $0.append($1) }
      }
      #expect(counts.reduce(0, +) == total)
    }
  }

  @Test func fullBuffersStopTheReadingButNotTheAnswers() async throws {
    var options = ConnectionOptions()
    options.undeliveredMaxBytes = 100_000
    try await Broker.withQueue(options) { channel, queue in
      let body = [UInt8](repeating: 7, count: 1000)
      let total = 20_000
      for _ in 0..<total { try await channel.publish(body, key: queue) }
      let consumer = try await channel.consume(queue, withoutAck: true)
      var count = 0
      while count < total, let delivery = try await consumer.next() {
        #expect(delivery.body.count == 1000)
        count += 1
        if count % 1000 == 0 { try await channel.setPrefetch(0) }
      }
      #expect(count == total)
    }
  }
}
