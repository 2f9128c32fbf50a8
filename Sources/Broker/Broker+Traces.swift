import Base

/// Delivering, and what is copied of it.
extension Broker {
  /// Where clients listen.
  public static var eventExchange: Name { Events.exchangeName }
  public static var traceExchange: Name { Firehose.exchangeName }

  func deliver(isOverdrawing: Bool) {
    deliveries.deliver(isOverdrawing: isOverdrawing)
    guard !firehose.isEmpty else { return }
    firehose.store(in: self)
    // What is copied of this comes to its queues in the next turn.
    deliveries.deliver(isOverdrawing: isOverdrawing)
  }

  /// Events and traces that found no room since the last call.
  public func takeDropped() -> (events: Int, traces: Int) {
    (events.takeDropped(), firehose.takeDropped())
  }
}
