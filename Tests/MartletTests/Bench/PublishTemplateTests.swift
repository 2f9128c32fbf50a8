import AMQP
import Base
import Client
import Testing

@testable import martlet

@Suite struct PublishTemplateTests {
  @Test func slotsAreWholeMessagesWithNumbersAndTimes() throws {
    var template = Self.template(routes: ["a", "b", "c"], size: 40)
    #expect(template.slots % 3 == 0)
    template.number(from: 0, count: 7, stamp: 1000, step: 10, stampEvery: 2)
    let messages = Self.messages(template, from: 0, count: 7)
    #expect(messages.map(\.key) == ["a", "b", "c", "a", "b", "c", "a"])
    #expect(messages.map(\.publisher) == Array(repeating: 9, count: 7))
    #expect(messages.map(\.sequence) == [0, 0, 0, 1, 1, 1, 2])
    #expect(messages.map(\.time) == [1000, 0, 1020, 0, 1040, 0, 1060])
    #expect(messages.allSatisfy { $0.size == 40 })
  }

  @Test func numbersGoOnWhenTheRingBeginsAnew() throws {
    var template = Self.template(routes: ["a", "b"], size: 16)
    let first = template.slots * 3 - 1
    #expect(template.run(from: first) == 1)
    template.number(from: first, count: 1, stamp: 5, step: 0, stampEvery: 1)
    #expect(Self.messages(template, from: first, count: 1)[0].sequence == UInt64(first / 2))
    #expect(template.run(from: first + 1) == template.slots)
    #expect(template.range(from: first + 1, count: 1).lowerBound == 0)
  }

  @Test func smallBodiesCarryWhatFits() {
    var eight = Self.template(routes: ["a"], size: 8)
    eight.number(from: 3, count: 1, stamp: 5, step: 0, stampEvery: 1)
    #expect(Self.messages(eight, from: 3, count: 1)[0].sequence == 3)
    var five = Self.template(routes: ["a"], size: 5)
    five.number(from: 3, count: 1, stamp: 5, step: 0, stampEvery: 1)
    #expect(Self.messages(five, from: 3, count: 1)[0].size == 5)
  }

  @Test func largeBodiesAreCutIntoFrames() {
    var template = Self.template(routes: ["a"], size: 300_000)
    #expect(template.slots == 1)
    template.number(from: 6, count: 1, stamp: 5, step: 0, stampEvery: 1)
    let message = Self.messages(template, from: 6, count: 1)[0]
    #expect(message.size == 300_000)
    #expect(message.sequence == 6)
  }

  // MARK: Helpers

  private struct Found {
    var key = ""
    var size = 0
    var publisher: UInt64 = 0
    var sequence: UInt64 = 0
    var time: UInt64 = 0
  }

  private static func template(routes: [Name], size: Int) -> PublishTemplate {
    var options = BenchOptions(url: ConnectionURL())
    options.size = size
    options.isPersistent = true
    let routes = routes.map { BenchRoute(exchange: "x", routingKey: $0, headers: nil) }
    return PublishTemplate(routes, options, publisher: 9, frameMax: 131_072)
  }

  /// Reads frames as the specification has them.
  private static func messages(
    _ template: PublishTemplate, from first: Int, count: Int
  ) -> [Found] {
    let range = template.range(from: first, count: count)
    var rest = template.copy(range)[...]
    var found: [Found] = []
    while !rest.isEmpty {
      let size = Int(rest.number(3, 4))
      let payload = rest.dropFirst(7).prefix(size)
      #expect(rest.dropFirst(7 + size).first == Frame.end)
      switch rest.first {
      case Frame.method:
        let exchange = Int(payload.number(6, 1))
        let key = payload.dropFirst(7 + exchange)
        let text = key.dropFirst().prefix(Int(key.number(0, 1)))
        found.append(Found(key: String(decoding: text, as: UTF8.self)))
      case Frame.header:
        #expect(payload.number(4, 8) == template.bodySize)
      default:
        let last = found.count - 1
        if found[last].size == 0, size >= 8 {
          found[last].publisher = payload.number(0, 2)
          found[last].sequence = payload.number(2, 6)
          if size >= 16 { found[last].time = payload.number(8, 8) }
        }
        found[last].size += size
      }
      rest = rest.dropFirst(size + Frame.overhead)
    }
    #expect(found.count == count)
    return found
  }
}

extension ArraySlice<UInt8> {
  /// `size` bytes from `offset` on, the first the highest.
  fileprivate func number(_ offset: Int, _ size: Int) -> UInt64 {
    dropFirst(offset).prefix(size).reduce(0) { $0 << 8 | UInt64($1) }
  }
}

extension PublishTemplate {
  fileprivate func copy(_ range: Range<Int>) -> [UInt8] { Array(bytes[range]) }
}
