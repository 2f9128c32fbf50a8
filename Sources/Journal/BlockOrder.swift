import Base

/// A block in the order in which blocks were closed; stale once its slot has another start.
struct OrderedBlock: BitwiseCopyable {
  let block: UInt32
  let start: Int
}

/// Closed blocks of one home, oldest first. Blocks are given up in any order, and stay here until they
/// are the oldest, or until they are more than those that are alive.
struct BlockOrder: ~Copyable {
  private var order = Ring<OrderedBlock>()
  /// So many were alive when the stale ones were last dropped.
  private var aliveCount = 0

  /// As many stale ones as there were alive, and these, are kept.
  private static let staleMax = 64

  init() {}

  var count: Int { order.count }

  mutating func append(
    _ block: OrderedBlock, _ blocks: UnsafeMutablePointer<Block>, _ home: Block.Home
  ) {
    order.append(block)
    guard order.count > 2 * aliveCount + Self.staleMax else { return }
    for _ in 0..<order.count {
      let next = order.removeFirst()
      if Self.isAlive(next, blocks, home) { order.append(next) }
    }
    aliveCount = order.count
  }

  /// The start of the oldest block that is alive; forgets those before it.
  mutating func oldest(
    _ blocks: UnsafeMutablePointer<Block>, _ home: Block.Home
  ) -> Int? {
    while let first = order.first {
      if Self.isAlive(first, blocks, home) { return first.start }
      _ = order.removeFirst()
    }
    return nil
  }

  /// Forgets the blocks that begin before `floor`. Returns the bytes of those that are alive.
  mutating func forget(
    before floor: Int, _ blocks: UnsafeMutablePointer<Block>, _ home: Block.Home
  ) -> Int {
    var bytes = 0
    while let first = order.first, first.start < floor {
      if Self.isAlive(first, blocks, home) { bytes += blocks[Int(first.block)].capacity }
      _ = order.removeFirst()
    }
    return bytes
  }

  private static func isAlive(
    _ ordered: OrderedBlock, _ blocks: UnsafeMutablePointer<Block>, _ home: Block.Home
  ) -> Bool {
    let block = blocks[Int(ordered.block)]
    return block.home == home && block.start == ordered.start
  }
}
