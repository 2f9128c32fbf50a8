import Journal

/// What is done when a queue's message cannot be read.
extension Queue {
  func tell(_ damage: String) {
    guard !isDamageTold else { return }
    isDamageTold = true
    journal.note(
      problem: "queue '\(name)' is stopped where \(damage); stop the broker and run"
        + " `martlet journal repair`")
  }

  /// The next message is damaged: nobody is served before that is repaired, so that none is passed over
  /// without a word. What waits behind it stays.
  func stopConsumers() {
    guard let block = lane.nextBlock ?? feed?.awaited, let damage = journal.damage(of: block) else {
      return
    }
    tell(damage)
    while let consumer = rounds.any {
      remove(consumer)
      consumer.channel.queueStopped(consumer)
    }
    feed?.ended()
  }
}

extension Lane {
  /// A message in the log was found damaged.
  func stayInLog(since damage: String) {
    staysInLog = true
    queue.tell(damage)
  }

  /// A round passes it over, unless it has been emptied.
  func stayInLog() {
    if readyCount + unacknowledgedCount == 0 { staysInLog = false }
  }
}
