import Client

/// What becomes of a message once it is printed.
enum AckMode: String, CaseIterable, Sendable {
  /// It is acknowledged, and gone.
  case manual
  /// The broker forgets it as it sends it.
  case auto
  /// It is refused, and dead-lettered or dropped.
  case reject
  /// It goes back to its queue.
  case requeue

  static let option = Option.value(
    "ack", "MODE", as: .choice, default: AckMode.manual, shown: "manual",
    """
    manual acknowledges each message after it is printed; auto lets the broker forget messages as it \
    sends them, which is faster, and loses what is not printed; reject refuses them, so that they \
    are dead-lettered or dropped; requeue gives them back at the end.
    """)

  /// Answers what was printed up to delivery `tag`.
  func settle(upTo tag: UInt64, on channel: Channel) throws(ClientError) {
    switch self {
    case .auto: break
    case .manual: try channel.ack(tag, multiple: true)
    case .reject: try channel.nack(tag, multiple: true, requeue: false)
    case .requeue: try channel.nack(tag, multiple: true, requeue: true)
    }
  }
}
