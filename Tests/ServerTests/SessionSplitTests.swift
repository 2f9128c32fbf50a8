import AMQP
import Arbitrary
import Base
import Testing

@testable import Client
@testable import Server

/// However the bytes of a dialogue are cut on their way, the answers are the same.
@Suite struct SessionSplitTests {
  @Test func theWholeConversationSaysWhatItShould() throws {
    let loop = try TestLoop()
    let answers = Self.run(Dialogue.whole, on: loop) { [$0] }
    let events = try answers.flatMap { bytes throws(ClientError) in try ClientEvent.parse(bytes) }
    let messages = events.compactMap { if case .message(let message) = $0 { message } else { nil } }
    #expect(messages.count(where: { $0.kind == .delivery }) == 8)
    #expect(messages.count(where: { $0.kind == .answer }) == 3)
    #expect(messages.count(where: { $0.kind == .returned }) == 1)
    let confirms = events.count { if case .confirm = $0 { true } else { false } }
    #expect(confirms == 10)
    #expect(events.last == .method(.connectionCloseOk(ConnectionCloseOk()), channel: 0))
  }

  @Test(arguments: [Dialogue.whole] + Dialogue.mistakes)
  func cuttingAnywhereChangesNoAnswer(dialogue: Dialogue) throws {
    let loop = try TestLoop()
    let expected = Self.run(dialogue, on: loop) { [$0] }
    for cut in 1..<dialogue.steps.reduce(0, { $0 + $1.count }) {
      var offset = 0
      let answers = Self.run(dialogue, on: loop) { step in
        let place = cut - offset
        offset += step.count
        return step.indices.contains(place) ? [step[..<place], step[place...]] : [step]
      }
      try #require(answers == expected, "cut at byte \(cut)")
    }
  }

  @Test(arguments: [Dialogue.whole] + Dialogue.mistakes)
  func sendingByteByByteChangesNoAnswer(dialogue: Dialogue) throws {
    let loop = try TestLoop()
    let expected = Self.run(dialogue, on: loop) { [$0] }
    let answers = Self.run(dialogue, on: loop) { step in
      step.indices.map { step[$0...$0] }
    }
    #expect(answers == expected)
  }

  @Test(arguments: Seed.some(20))
  func cuttingAtRandomChangesNoAnswer(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let loop = try TestLoop()
    for dialogue in [Dialogue.whole] + Dialogue.mistakes {
      let expected = Self.run(dialogue, on: loop) { [$0] }
      let answers = Self.run(dialogue, on: loop) { step in
        var pieces: [ArraySlice<UInt8>] = []
        var rest = step
        while !rest.isEmpty {
          pieces.append(rest.prefix(random.number(1...random.choose([3, 20, 200]))))
          rest = rest.dropFirst(pieces.last?.count ?? 0)
        }
        return pieces
      }
      try #require(answers == expected, "\(dialogue.testDescription)")
    }
  }

  /// The answers to each step, whose bytes arrive in the pieces that `cut` makes of them.
  private static func run(
    _ dialogue: Dialogue, on loop: TestLoop,
    _ cut: (ArraySlice<UInt8>) -> [ArraySlice<UInt8>]
  ) -> [[UInt8]] {
    loop.repeatNames()
    let client = loop.connect()
    defer { loop.drop(client) }
    return dialogue.steps.map { step in
      for piece in cut(step[...]) { client.send(Array(piece)) }
      loop.settle()
      return client.takeBytes()
    }
  }
}
