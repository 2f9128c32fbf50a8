import AMQP
import Base

/// Where a message would go, and why: what each exchange on its way makes of it.
public struct RouteExplanation {
  /// A binding, and what it makes of the message.
  public struct Link {
    public let destination: Name
    public let isToExchange: Bool
    public let key: Name
    public let arguments: FieldTable
    /// By the type of the exchange alone: the routing key or the headers fit.
    public let fits: Bool
    /// What the filter says; nil if there is none.
    public let filter: FilterTruth?
    /// The message goes there.
    public let takes: Bool
  }

  public enum FilterTruth: String, Sendable {
    case isTrue = "true"
    case isFalse = "false"
    case unknown
  }

  /// What becomes of a message at an exchange.
  public enum Ending: Equatable, Sendable {
    /// It goes on by the bindings.
    case routed
    /// It waits for so many milliseconds, and is routed then.
    case delayed(milliseconds: Int64)
    /// It was seen before, and is dropped.
    case repeated
    /// It is refused, and the publisher's channel is closed.
    case refused(reason: String)
  }

  /// How an exchange finds the bindings that get a message.
  public enum Choice: String, Sendable {
    /// All that fit.
    case all
    /// One by a hash of the message.
    case hash
    /// One by chance: it may be another one the next time.
    case chance
  }

  public struct Stop {
    public let exchange: Name
    public let type: Name
    public let isInternal: Bool
    public let choice: Choice
    public internal(set) var ending = Ending.routed
    /// The exchange keeps it for what will be bound.
    public internal(set) var isKept = false
    /// Those that take the message, and some others; each kind by the names of destinations.
    public internal(set) var links: [Link] = []
    public internal(set) var bindingCount = 0
    /// The exchange for what no binding takes.
    public internal(set) var alternate: Alternate?
  }

  public struct Alternate {
    public let exchange: Name
    /// There is one of that name.
    public let exists: Bool
    /// The message goes there.
    public internal(set) var takes = false
  }

  /// Why a queue does not take a message that reaches it.
  public enum Refusal: String, Sendable {
    /// It has no room, and refuses what is published.
    case full
    /// It had such a message lately.
    case repeated
  }

  public struct Arrival {
    public let queue: Name
    public let isDurable: Bool
    public let readyCount: Int
    public let consumerCount: Int
    public let refusal: Refusal?
  }

  /// In the order in which they are reached.
  public internal(set) var stops: [Stop] = []
  public internal(set) var arrivals: [Arrival] = []
  /// The message reaches more exchanges or queues than were looked at.
  public internal(set) var isCut = false
}
