/// What the journal keeps besides blocks.
extension Journal {
  /// Places in lists of blocks, also of blocks that are gone.
  public var listedBlocks: Int {
    resident.count + logOrder.count + transientOrder.count + waitingLoads.count + failedLoads.count
      + closedBlocks.count + committingBlocks.count
  }

  /// Bytes of the log from its oldest block that is alive.
  public var aliveLogBytes: Int { oldestLogBlock().map { durablePosition - $0 } ?? 0 }

  /// Blocks that there can be before more memory is taken for them.
  public var blockSlots: Int { blockCapacity }
}
