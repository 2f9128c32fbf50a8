/// What a client has asked for on a channel since its last commit or rollback.
final class TransactionModel {
  var messages: [Message] = []
  /// Tags of deliveries that leave their queues at the commit.
  var answered: Set<UInt64> = []
}

/// A commit: after a crash all of it is there, or nothing.
final class CommitModel {
  private var isFound: Bool?

  /// After a crash something was seen that says whether it is there.
  func found(_ isThere: Bool, _ copy: Copy) throws(BrokenPromise) {
    if let isFound {
      try promise(
        isFound == isThere, "a commit is there whole or not at all",
        "m\(copy.message.id) in \(copy.queue.name) says \(isThere)")
    }
    isFound = isThere
  }
}

/// What a copy that a crash left uncertain says of a commit.
enum CommitDoubt {
  /// It is there if the commit is.
  case stored(CommitModel)
  /// It is there if the commit is not.
  case removed(CommitModel)

  func seen(_ copy: Copy, isThere: Bool) throws(BrokenPromise) {
    switch self {
    case .stored(let commit): try commit.found(isThere, copy)
    case .removed(let commit): try commit.found(!isThere, copy)
    }
  }
}

/// Transactions.
extension Oracle {
  /// Notes what is to become of deliveries at the commit.
  func answer(_ tag: UInt64, _ isMultiple: Bool, _ channel: ChannelModel) throws(BrokenPromise) {
    guard let transaction = channel.transaction else { return }
    guard isMultiple else {
      try promise(channel.mayAnswer(tag), "what is wrong is refused", "tag \(tag)")
      transaction.answered.insert(tag)
      return
    }
    try promise(tag == 0 || channel.mayAnswer(tag), "what is wrong is refused", "tag \(tag)")
    for delivery in channel.deliveries where tag == 0 || delivery.tag <= tag {
      transaction.answered.insert(delivery.tag)
    }
  }

  /// The broker has taken the request for a commit. Where it goes on between turns, nothing happens before that
  /// is over.
  func beginCommit(_ channel: ChannelModel) {
    if channel.connection.isWorking() { return committing.append(channel) }
    commit(channel)
  }

  /// Commits that went on between turns may be over.
  func finishCommits() {
    guard !committing.isEmpty else { return }
    let channels = committing
    committing = []
    for channel in channels where channel.transaction != nil { beginCommit(channel) }
  }

  private func commit(_ channel: ChannelModel) {
    guard let transaction = channel.transaction else { return }
    coverage.note(.transactions)
    channel.transaction = TransactionModel()
    let commit = CommitModel()
    var copies: [Copy] = []
    for message in transaction.messages {
      let destinations = route(message)
      message.destinations = destinations
      trace.note(
        "    m\(message.id) is committed before \(endPosition), for \(destinations.map(\.name))")
      for queue in destinations {
        copies.append(queue.publish(message, at: endPosition, by: commit))
      }
      if destinations.isEmpty, message.isMandatory {
        channel.expected.append(ExpectedReply(name: "basic.return \(message.id)"))
      }
    }
    var removed: [Copy] = []
    for delivery in channel.deliveries where transaction.answered.contains(delivery.tag) {
      delivery.consumer?.lockedCount -= 1
      // Its queue may have been deleted.
      guard delivery.copy.place == .locked else { continue }
      delivery.copy.queue.remove(delivery.copy, at: endPosition)
      delivery.copy.removedBy = commit
      removed.append(delivery.copy)
    }
    channel.deliveries.removeAll { transaction.answered.contains($0.tag) }
    channel.expected.append(
      ExpectedReply(
        name: "tx.commit-ok",
        promised: {
          for copy in copies { copy.stored.isPromised = true }
          for copy in removed { copy.removed?.isPromised = true }
        }))
  }
}
