import AMQP
import Base

/// What memory goes to whose size clients decide. Everything that grows with what clients do is counted
/// here, in bytes and as it grows and shrinks, so that what the alarm, the limits and the status line
/// say costs nothing to ask. What does not depend on clients (code, options, threads) is not.
public struct MemoryAccount {
  /// What bytes are used for.
  public enum Kind: Int, CaseIterable, Sendable {
    /// Blocks of messages that only consuming them, or moving them to the disk, takes out of memory.
    case messages
    /// Blocks of messages that are on the disk as well, and leave memory when it is needed.
    case cache
    /// Places of waiting messages in queues, and of what left them and is not in the log yet.
    case entries
    /// Deliveries that are not acknowledged.
    case deliveries
    /// Exchanges, queues, bindings and consumers.
    case topology
    /// Routes that are remembered.
    case routes
    /// What exchanges and queues remember of messages.
    case remembered
    /// Connections and channels themselves.
    case connections
    /// Bytes that were received and not taken yet.
    case input
    /// Bodies that have not arrived to their end.
    case bodies
    /// What clients have asked for in transactions and not committed.
    case transactions
    /// Events and copies of traced messages that are still to be stored.
    case events
    /// Bytes that clients have not taken yet.
    case output
  }

  /// How much one kind may take before its users have to wait or are refused, as a part of the memory
  /// limit; none alone can raise the memory alarm, which blocks all publishers.
  private static let shareOfOne = 4

  /// The same for a kind whose growth is held back in two steps.
  private static let hardShareOfOne = 2

  private var bytes = InlineArray<13, Int>(repeating: 0)
  /// All kinds together.
  public private(set) var total = 0
  /// All that does not go by itself when memory is needed.
  public var pinned: Int { total - self[.cache] }
  /// Bytes above which publishers are blocked.
  public let limitBytes: Int

  public init(limitBytes: Int) {
    invariant(Kind.allCases.count == bytes.count, "the account has a place for each kind")
    self.limitBytes = limitBytes
  }

  public subscript(kind: Kind) -> Int { bytes[kind.rawValue] }

  /// Something of this kind grew by so many bytes, or shrank.
  @inline(__always)
  public mutating func add(_ delta: Int, to kind: Kind) {
    bytes[kind.rawValue] &+= delta
    total &+= delta
  }

  /// Everything of this kind takes so many bytes now.
  public mutating func set(_ size: Int, of kind: Kind) {
    add(size - bytes[kind.rawValue], to: kind)
  }

  /// Bytes of one kind above which it is to grow no more.
  public var budgetBytes: Int { limitBytes / Self.shareOfOne }

  /// About what an object with a name and arguments takes, with its places in tables.
  static func bytes(_ fixed: Int, _ name: Name, _ arguments: FieldTable) -> Int {
    fixed + name.bytes.count + arguments.memoryBytes
  }

  public func isOverBudget(_ kind: Kind) -> Bool { self[kind] > budgetBytes }

  /// The kind takes twice what it should, although it was held back.
  public func isExhausted(_ kind: Kind) -> Bool {
    self[kind] > limitBytes / Self.hardShareOfOne
  }
}
