/// What goes when those go who use it.
extension Oracle {
  /// The channel is over: what was locked comes back, its consumers leave.
  func giveUp(_ channel: ChannelModel) {
    for queue in channel.giveUp() { consumerLeft(queue) }
  }

  /// The connection is over.
  func close(_ connection: ConnectionModel) {
    guard !connection.isClosed else { return }
    connection.isClosed = true
    for (_, channel) in connection.channels.sorted(by: { $0.key < $1.key }) { giveUp(channel) }
    connection.channels = [:]
    for name in topology.fleetingQueues where queue(name).owner === connection {
      coverage.note(.exclusiveEnds)
      delete(queue(name))
    }
  }

  /// A consumer of the queue ended: the queue may go with it.
  func consumerLeft(_ queue: QueueModel) {
    guard queue.isLeft || (isRotten && isLeftUnheard(queue)) else { return }
    // Its consumer may have been cancelled for damage, which leaves it, and not have heard of that.
    if isRotten, isThere(queue.name) { return }
    coverage.note(.autoDeletions)
    delete(queue)
  }

  /// The last of its consumers has left but for those that were cancelled for damage, whose clients hear of
  /// that behind the answer that they wait for.
  private func isLeftUnheard(_ queue: QueueModel) -> Bool {
    queue.goesWithConsumers && !isThere(queue.name)
      && queue.consumers.allSatisfy { $0.isTold && $0.isWaiting }
  }

  func delete(_ queue: QueueModel) {
    trace.note("    \(queue.name) goes before \(endPosition)")
    bindings = bindings.filter { $0.isToExchange || $0.destination != queue.name }
    queue.deleted(at: endPosition)
  }

  /// Consumers are ended by the broker only when their queue is gone, or damaged. What goes with a
  /// request may be heard before it is known that the request was taken.
  func explainCancelled(before command: Command?) throws(BrokenPromise) {
    var deleted: String?
    if case .delete(let name) = command?.action { deleted = name }
    let left = cancelled.filter { $0.queue.name == deleted }
    for consumer in cancelled
    where consumer.queue.name != deleted
      && consumer.queue.consumers.contains(where: { $0 === consumer })
    {
      try promise(
        isRotten, "consumers are cancelled with their queue",
        "\(consumer.tag) of \(consumer.queue.name)")
      coverage.note(.cancelsForDamage)
      cancelledForDamage = turn
      // The queue stays with what is in it, whatever its kind.
      consumer.queue.remove(consumer)
    }
    cancelled = left
  }
}
