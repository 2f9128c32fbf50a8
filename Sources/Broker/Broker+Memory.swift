import Journal

/// What is done about the memory that clients take.
extension Broker {
  /// Memory of the deliveries that wait for their acknowledgement.
  public var deliveryBytes: Int { account[.deliveries] }

  /// Brings the account up to date with the journal; returns what does not go by itself.
  public func memoryBytesPinned() -> Int {
    let pinned = journal.pinnedBytes
    account.set(pinned, of: .messages)
    account.set(consumerBytes + vhosts.values.reduce(0) { $0 + $1.topologyBytes }, of: .topology)
    account.set(vhosts.values.reduce(0) { $0 + $1.routeBytes }, of: .routes)
    account.set(journal.memoryBytes - pinned, of: .cache)
    // What only who has not sent a message yet keeps in memory is output.
    account.add(journal.lentBytes - countedLoans, to: .output)
    countedLoans = journal.lentBytes
    return account.pinned
  }

  /// Whether something more may be declared or begun; `what` is it, such as "a queue".
  func requireRoom(for what: String) throws(BrokerError) {
    guard account.isOverBudget(.topology) || account.isOverBudget(.connections) else { return }
    let used = account[.topology] + account[.connections]
    throw .limitReached(.memory(for: what, used: used, max: account.budgetBytes))
  }

  /// Whether another channel may be opened.
  public func requireChannelRoom() throws(BrokerError) {
    guard account.isOverBudget(.connections) else { return }
    throw .limitReached(
      .memory(for: "a channel", used: account[.connections], max: account.budgetBytes))
  }

  /// Whether transactions may take more.
  func requireTransactionRoom() throws(BrokerError) {
    guard account.isOverBudget(.transactions) else { return }
    throw .limitReached(
      .transactionMemory(used: account[.transactions], max: account.budgetBytes))
  }

  /// Larger messages wait while output is exhausted.
  static let smallMessageBytes = 64 << 10

  /// Output takes too much memory. Nobody gets more before its connection `roomMade` again.
  public func exhaustOutput() {
    guard !isOutputExhausted else { return }
    isOutputExhausted = true
    for peer in peers { peer.roomFilled() }
  }

  public func relieveOutput() {
    isOutputExhausted = false
    for queue in stopped where !queue.isDeleted { queue.goOn() }
    stopped = []
  }

  /// The queue's next message is too large for now.
  func noteStopped(_ queue: Queue) {
    stopped.append(queue)
  }

  func noteDelivering() {
    deliversCarefully = isOutputExhausted || tracedCount > 0
  }
}
