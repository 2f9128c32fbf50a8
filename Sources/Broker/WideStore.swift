import AMQP
import Base
import Journal

/// Stores a message that goes to very many queues: in slices, each with a record of its own for its
/// part of the queues, so that others are served in between. The publisher's connection waits, and the
/// confirm leaves after the last slice. A stop in between leaves the message, which was not confirmed,
/// in some of the queues.
final class WideStore: Chore {
  private let channel: Channel
  private let route: Route
  private let names: [UInt8]
  private let properties: [UInt8]
  private let content: Content
  private let isPersistent: Bool
  /// It came with an expiration.
  private let isMarked: Bool
  /// Bytes of memory of the message.
  private let size: Int
  /// The first queue that does not have it yet.
  private var next = 0
  private var isDurable = false
  /// A queue had no room.
  private var isRefused = false
  /// The record of the next slice, which is being put together.
  private var copy: RecordDraft?

  /// The body: bytes that are copied into each slice's record, or a large one. Its memory is the last slice's,
  /// and the others get copies that are made in parts.
  enum Content {
    case bytes([UInt8])
    case draft(RecordDraft)

    var memoryBytes: Int {
      switch self {
      case .bytes(let bytes): bytes.count
      case .draft(let draft): draft.capacity
      }
    }
  }

  /// Routes of so many queues are stored at once.
  static let queuesMax = 2048
  /// Queues of a slice: more for a large message, which is written once for each slice.
  private static let sliceMin = 1024
  private static let sliceMax = 8192
  private static let bytesPerQueue = 64
  /// A queue that was empty begins a chunk of entries in fresh memory, and is looked at by its consumers.
  private static let stepsPerQueue = 8
  /// Of a large body so much is copied at once, and so much for a step, into fresh memory.
  private static let copiedBytes = 64 << 10
  private static let copiedBytesPerStep = 128

  init(
    _ channel: Channel, _ route: Route, names: RawSpan, properties: RawSpan, content: Content,
    isPersistent: Bool
  ) {
    self.channel = channel
    self.route = route
    self.names = names.withUnsafeBytes { Array($0) }
    isMarked = MessageView.isMarked(properties)
    self.properties = properties.withUnsafeBytes { Array($0) }
    self.content = content
    self.isPersistent = isPersistent
    size = self.names.count + self.properties.count + content.memoryBytes
    channel.broker.wideStoreBegan(bytes: size)
  }

  func advance(_ steps: inout Int) -> Bool {
    let broker = channel.broker
    while steps > 0, next < route.count {
      // What a failed log has of it is not confirmed.
      if isPersistent, broker.journal.failure != nil { next = route.count }
      let count = min(Self.sliceMax, max(Self.sliceMin, size / Self.bytesPerQueue))
      let end = min(route.count, next + count)
      guard end == route.count || isCopied(&steps, broker) else { return false }
      store(in: Route(those: route.destinations[next..<end]), broker, isLast: end == route.count)
      steps -= Self.stepsPerQueue * (end - next)
      next = end
    }
    guard next == route.count else { return false }
    forgetCopy(broker)
    if !isRefused { broker.remember(route.remembrances) }
    broker.wideStoreEnded(bytes: size)
    channel.storeEnded(isDurable: isDurable, isRefused: isRefused)
    return true
  }

  /// Goes on with the copy of a large body for the next slice. Returns whether there is one, or none is
  /// needed.
  private func isCopied(_ steps: inout Int, _ broker: Broker) -> Bool {
    guard case .draft(let source) = content else { return true }
    if copy == nil { copy = RecordDraft(broker.journal, headSize: source.headSize) }
    guard let copy else { return true }
    while copy.count < source.count, steps > 0 {
      let (before, capacity) = (copy.count, copy.capacity)
      let end = min(source.count, before + Self.copiedBytes)
      let part = UnsafeRawBufferPointer(rebasing: source.body[before..<end])
      copy.append(part.bytes, of: source.count)
      broker.account.add(copy.capacity - capacity, to: .bodies)
      steps -= max(1, part.count / Self.copiedBytesPerStep)
    }
    return copy.count == source.count
  }

  private func forgetCopy(_ broker: Broker) {
    guard let copy else { return }
    broker.account.add(-copy.capacity, to: .bodies)
    self.copy = nil
  }

  private func store(in slice: Route, _ broker: Broker, isLast: Bool) {
    guard slice.count > 0 else { return }
    let isDurable = slice.placeCount(isPersistent: isPersistent) > 0
    if isDurable { self.isDurable = true }
    let isPlain = slice.isPlain && !isMarked
    switch content {
    case .bytes(let body):
      guard isPlain else {
        return body.withUnsafeBytes { store($0, nil, in: slice, broker) }
      }
      Self.store(names, properties, body, in: slice, isDurable: isDurable, broker)
    case .draft(let source):
      let record = isLast ? source : copy
      forgetCopy(broker)
      guard let record else { invariantFailed("a wide store has no record for a slice") }
      guard isPlain else { return store(record.body, record, in: slice, broker) }
      Self.store(record, names, properties, in: slice, isDurable: isDurable, broker)
    }
  }

  /// Where some of the queues have settings, or the message is a marked one. There may be no number left for a lane: the publish is refused
  /// then, since its connection was answered before.
  private func store(
    _ body: UnsafeRawBufferPointer, _ draft: RecordDraft?, in slice: Route, _ broker: Broker
  ) {
    let (names, properties) = (names, properties)
    do throws(BrokerError) {
      let hasRoom = try broker.storePublished(
        names: names.span.bytes, properties: properties.span.bytes, body: body.bytes, draft,
        in: slice, isPersistent: isPersistent)
      if !hasRoom { isRefused = true }
    } catch {
      isRefused = true
    }
  }

  private static func store(
    _ names: [UInt8], _ properties: [UInt8], _ body: [UInt8], in slice: Route, isDurable: Bool,
    _ broker: Broker
  ) {
    broker.store(
      names: names.span.bytes, properties: properties.span.bytes, body: body.span.bytes,
      in: slice, isDurable: isDurable)
  }

  private static func store(
    _ record: RecordDraft, _ names: [UInt8], _ properties: [UInt8], in slice: Route,
    isDurable: Bool, _ broker: Broker
  ) {
    broker.store(
      record, names: names.span.bytes, properties: properties.span.bytes, in: slice,
      isDurable: isDurable)
  }
}
