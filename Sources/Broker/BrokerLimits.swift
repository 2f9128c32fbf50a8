import AMQP

/// What a broker accepts at most.
public struct BrokerLimits: Equatable, Sendable {
  public var queuesMax = 1_000_000
  public var exchangesMax = 100_000
  public var bindingsMax = 10_000_000
  public var consumersMax = 65_535
  /// Different priorities of a queue's consumers.
  public var consumerPrioritiesMax = 1024
  public var unacknowledgedMax = 10_000_000
  /// Of a queue, an exchange, a binding.
  public var argumentsMax = 256
  /// Of a message, in its headers CC and BCC.
  public var routingKeysMax = 256
  /// Look-ups for one message: routing keys times exchanges, patterns that begin like a key, headers.
  public var routingStepsMax = 50_000
  /// Messages, and deliveries that are answered, of one transaction.
  public var transactionOperationsMax = 8192
  /// Bytes of the messages of one transaction, besides the largest of them.
  public var transactionBytesMax = 4 << 20
  /// What a commit costs, which is done in one turn: steps of up to half a microsecond. A message takes one for
  /// itself, one for each KiB that is copied, and one for each queue; see `TransactionCommit`.
  public var transactionStepsMax = 20_000
  /// Bytes of direct replies for a connection whose output is full; more are dropped.
  public var unreadReplyBytesMax = 16 << 20
  /// Memory above which publishers are blocked; its parts have budgets from it.
  public var memoryBytes = Int.max
  /// What is delivered in a turn, in bytes of bodies and some for each delivery: one or two milliseconds.
  public var deliveryBytesPerTurn = 4 << 20
  /// Steps in a turn of what clients asked for and takes many turns, all of it together: one or two
  /// milliseconds.
  public var choreStepsPerTurn = 8192
  /// Steps in a turn of checkpoints and of rounds of spilling.
  public var walkStepsPerTurn = 4096
  /// Counts of deliveries that one commit writes: others are for the next.
  public var deliveryCountsPerCommit = 16_384
  /// Steps in a turn of what is due by itself.
  public var dueStepsPerTurn = 4096

  /// Events that wait to be sent, and copies of traced messages that wait to be stored; more are dropped.
  public var eventBytesMax = 16 << 20
  public var traceBytesMax = 8 << 20

  /// What is copied of a traced message's body.
  public static let tracedBodyMax = 1 << 20

  /// Larger bodies are put together in the memory in which they stay, unless they come at once, and are sent
  /// out of it: they are not copied into the log, nor into a connection's output.
  public static let copiedBodyMax = 64 << 10

  /// Of a binding of an exchange that routes by a hash: each unit costs points on its ring.
  public static let hashWeightMax = 1000

  /// Values by which an exchange or a queue knows repeated messages.
  public static let rememberedValuesMax = 100_000

  /// Messages that an exchange keeps for what will be bound to it, and what they take of memory.
  public static let recentMessagesMax = 10_000
  public static let recentBytesMax = 4 << 20

  /// What is asked of the broker itself: bytes of a request; bytes of all that wait; those that are worked on.
  public static let managementRequestBytesMax = 64 << 10
  public static let managementWaitingBytesMax = 4 << 20
  public static let managementActiveMax = 16

  /// Of an explanation of a route: exchanges; queues; bindings that take the message, and others; bytes of the
  /// names, keys and arguments of all of these.
  public static let explainedExchangesMax = 256
  public static let explainedQueuesMax = 1000
  public static let explainedTakersMax = 1000
  public static let explainedOthersMax = 200
  public static let explainedBytesMax = 128 << 10

  /// Groups of consumers of one stream.
  public static let streamGroupsMax = 1024
  /// Consumers of such a group.
  public static let streamGroupMembersMax = 2048
  /// Producers of one stream whose sequences it knows.
  public static let streamProducersMax = 1024
  /// Values of messages that one consumer of a stream asks for.
  public static let streamFilterValuesMax = 1024

  /// Of an answer about streams: streams, or partitions of groups of consumers.
  public static let streamPageMax = 1000

  /// Messages that wait for their time, of one page of a list.
  public static let delayedPageMax = 1000

  public init() {}

  func check(_ arguments: FieldTable) throws(BrokerError) {
    guard arguments.entries.count <= argumentsMax else {
      throw .limitReached(.arguments(count: arguments.entries.count, max: argumentsMax))
    }
  }
}
