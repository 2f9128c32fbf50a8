import AMQP
import Base

/// Stores a message that goes to very many queues: in slices, each with a record of its own for its
/// part of the queues, so that others are served in between. The publisher's connection waits, and the
/// confirm leaves after the last slice. A stop in between leaves the message, which was not confirmed,
/// in some of the queues.
final class WideStore: Chore {
  private let channel: Channel
  private let route: Route
  private let names: [UInt8]
  private let properties: [UInt8]
  private let body: [UInt8]
  private let isPersistent: Bool
  /// The first queue that does not have it yet.
  private var next = 0
  private var isDurable = false

  /// Routes of so many queues are stored at once.
  static let queuesMax = 2048
  /// Queues of a slice: more for a large message, which is written once for each slice.
  private static let sliceMin = 1024
  private static let sliceMax = 8192
  private static let bytesPerQueue = 64
  /// A queue that was empty begins a chunk of entries in fresh memory, and is looked at by its consumers.
  private static let stepsPerQueue = 8

  init(
    _ channel: Channel, _ route: Route, names: RawSpan, properties: RawSpan, body: RawSpan,
    isPersistent: Bool
  ) {
    self.channel = channel
    self.route = route
    self.names = names.withUnsafeBytes { Array($0) }
    self.properties = properties.withUnsafeBytes { Array($0) }
    self.body = body.withUnsafeBytes { Array($0) }
    self.isPersistent = isPersistent
    channel.broker.wideStoreBegan(bytes: size)
  }

  private var size: Int { names.count + properties.count + body.count }

  func advance(_ steps: inout Int) -> Bool {
    let broker = channel.broker
    while steps > 0, next < route.count {
      // What a failed log has of it is not confirmed.
      if isPersistent, broker.journal.failure != nil { next = route.count }
      let count = min(Self.sliceMax, max(Self.sliceMin, size / Self.bytesPerQueue))
      let end = min(route.count, next + count)
      store(in: Route(those: route.queues[next..<end]), broker)
      steps -= Self.stepsPerQueue * (end - next)
      next = end
    }
    guard next == route.count else { return false }
    broker.wideStoreEnded(bytes: size)
    channel.storeEnded(isDurable: isDurable)
    return true
  }

  private func store(in slice: Route, _ broker: Broker) {
    guard slice.count > 0 else { return }
    let isDurable = isPersistent && slice.durableCount > 0
    if isDurable { self.isDurable = true }
    Self.store(names, properties, body, in: slice, isDurable: isDurable, broker)
  }

  private static func store(
    _ names: [UInt8], _ properties: [UInt8], _ body: [UInt8], in slice: Route, isDurable: Bool,
    _ broker: Broker
  ) {
    broker.store(
      names: names.span.bytes, properties: properties.span.bytes, body: body.span.bytes,
      in: slice, isDurable: isDurable)
  }
}
