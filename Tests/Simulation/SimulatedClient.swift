import AMQP
import Arbitrary

/// A client: a connection with one channel or some.
final class SimulatedClient {
  let name: String
  let connection: SimulatedConnection
  private let channels: [SimulatedChannel]
  private var random: SeededGenerator
  /// Bytes that it reads in a turn.
  private let readBytes: Int

  /// `isTold`: it can be told of consumers that the broker ends.
  init(
    name: String, part: SimulatedChannel.Part, isTold: Bool, connection: SimulatedConnection,
    scenario: Scenario, options: RunOptions, oracle: Oracle, random: SeededGenerator
  ) {
    self.name = name
    self.connection = connection
    self.random = random
    let isSlow = self.random.oneIn(4) && !options.without.contains(.slowReaders)
    readBytes = isSlow ? self.random.choose([1, 100, 3000]) : .max
    connection.model.isTold = isTold
    connection.send(.connect(isTold: isTold), on: 0)
    let count = self.random.choose([1, 1, 2, 3])
    var channels: [SimulatedChannel] = []
    for index in 0..<count {
      channels.append(
        SimulatedChannel(
          number: UInt16(index + 1), name: name,
          part: index == 0 ? part : self.random.choose(SimulatedChannel.Part.allCases),
          connection: connection, scenario: scenario, options: options, oracle: oracle,
          random: SeededGenerator(seed: self.random.next())))
    }
    self.channels = channels
  }

  var hasPublisher: Bool { channels.contains { $0.part == .publisher } }

  func read() {
    let count = readBytes == .max ? .max : random.number(0...readBytes)
    connection.receive(count) { event in
      let number =
        switch event {
        case .content(let content): content.channel
        case .method(_, let number): number
        }
      channels.first { $0.number == number }?.hear(event)
    }
  }

  func act() {
    for channel in channels where random.oneIn(channels.count) { channel.act() }
  }
}
