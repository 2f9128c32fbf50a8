/// What deliveries may cost in a turn of the loop, in bytes that are copied into connections' output:
/// enough to keep sockets busy, and little enough that others are served in between.
struct DeliveryBudget {
  /// What a delivery costs beside its body, and looking at a queue.
  static let bytesPerDelivery = 256

  private let bytesPerTurn: Int
  /// Below zero when requests have overdrawn it.
  private var bytesLeft: Int
  /// Deliveries for a request go on until as much is spent again.
  var isOverdrawing = false
  /// Something is left for the next turn, or was when this one began.
  var hasRunOut = false
  private(set) var ranOutBefore = false

  init(bytesPerTurn: Int) {
    self.bytesPerTurn = bytesPerTurn
    bytesLeft = bytesPerTurn
  }

  /// A turn begins.
  mutating func renew() {
    bytesLeft = bytesPerTurn
    ranOutBefore = hasRunOut
    hasRunOut = false
  }

  @inline(__always)
  var isSpent: Bool { bytesLeft <= (isOverdrawing ? -bytesPerTurn : 0) }

  /// So little is spent that the turn goes on with deliveries however long it has taken: they are not
  /// to wait for ever behind what else there is to do.
  var isHardlySpent: Bool { bytesLeft > bytesPerTurn - bytesPerTurn / 8 }

  @inline(__always)
  mutating func spend(_ bodyBytes: Int) {
    bytesLeft &-= Self.bytesPerDelivery &+ min(bodyBytes, BrokerLimits.copiedBodyMax)
  }

  /// A copy of a message is made besides, and is stored.
  mutating func spend(copy bodyBytes: Int) {
    bytesLeft &-= Self.bytesPerCopy &+ min(bodyBytes, BrokerLimits.tracedBodyMax)
  }

  /// Records of a stream are looked at, and perhaps passed over.
  @inline(__always)
  mutating func spend(steps: Int) { bytesLeft &-= steps &* Self.bytesPerStep }

  /// They take as long as to deliver so many bytes.
  private static let bytesPerCopy = 4096
  private static let bytesPerStep = 256
}
