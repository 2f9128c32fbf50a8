extension Exchange {
  /// The types of exchanges, by the names that clients declare them with.
  public enum Kind: String, CaseIterable, Sendable {
    case direct, fanout, topic, headers
    /// To one of the bindings, by a hash and the bindings' weights.
    case consistentHash = "x-consistent-hash"
    /// To one of the bindings, by a hash and their number.
    case modulusHash = "x-modulus-hash"
    /// To one of the bindings, by chance.
    case random = "x-random"
    /// The same for queues of this node, which is all.
    case localRandom = "x-local-random"
    /// To all bindings, without messages that are repeated.
    case deduplication = "x-message-deduplication"
    /// To all bindings; new ones get the last messages.
    case recentHistory = "x-recent-history"
  }
}

extension Exchange.Kind {
  /// A binding fits by the routing key, and each key of a message may find others.
  var comparesKeys: Bool {
    switch self {
    case .direct, .topic: true
    case .fanout, .headers, .consistentHash, .modulusHash, .random, .localRandom, .deduplication,
      .recentHistory:
      false
    }
  }
}
