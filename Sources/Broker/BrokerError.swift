import Base

/// What the broker refuses, in its own words, with the facts that whoever asked needs to know. Each
/// protocol has its own code and text for it: see `Server`. One word in size, since every publish may throw
/// it and hardly any does.
public indirect enum BrokerError: Error, Equatable, Sendable {
  // MARK: Names

  /// There is none of this name.
  case notFound(Subject)
  /// The request names no queue, and nothing before it has.
  case noCurrentQueue
  /// The name is kept for what the broker makes itself.
  case reservedName(Subject)
  /// Every virtual host has it, and keeps it.
  case isPredeclared(exchange: Name, in: Name)
  /// The exchange without a name takes part in no request but publishing.
  case isDefaultExchange
  /// What waits for its time is nobody's before.
  case isDelayedQueue(Name, in: Name)
  /// Only bindings lead to it.
  case isInternal(exchange: Name, in: Name)
  /// It is there, and a property is another one than that asked for.
  case existsOtherwise(Subject, property: String, wanted: String, present: String)
  /// It is there, and an argument has another value than that asked for.
  case existsWithArgument(Subject, argument: Name, wanted: String, present: String)

  // MARK: Use

  /// It is another connection's, or is declared as one's own and is everybody's.
  case locked(queue: Name, in: Name)
  /// It has consumers or bindings.
  case inUse(Subject)
  /// A consumer is or wants to be alone.
  case inExclusiveUse(queue: Name, in: Name)
  /// It has messages.
  case notEmpty(queue: Name, in: Name)
  /// The channel has a consumer of this tag.
  case consumerTagInUse(Name)
  /// Direct replies cannot be acknowledged.
  case repliesNeedNoAcknowledgement
  /// The channel has its consumer of direct replies.
  case repliesAreConsumed
  /// A request wants its reply at the channel's consumer of direct replies, which is not there.
  case repliesAreNotConsumed
  /// Nothing with this tag is unacknowledged on the channel.
  case unknownDelivery(UInt64)

  // MARK: Transactions

  /// The channel has no transactions to commit or to roll back.
  case isNotTransactional
  /// The channel confirms publishes, and cannot have transactions as well.
  case isConfirming
  /// The channel has transactions, and cannot confirm publishes as well.
  case isTransactional
  /// A delivery that a commit answers has gone back to its queue, since its time was over; nothing of the
  /// commit has happened.
  case lockExpired(UInt64)
  /// A queue has no room for the messages of a commit, of which nothing has happened.
  case refusesCommit(queue: Name, in: Name)

  // MARK: Refused

  case unknownExchangeType(Name)
  /// The value of an argument is impossible.
  case refusedArgument(Name, of: ArgumentHolder, reason: String)
  /// The value of an argument that names something is of another type than names are.
  case mistypedArgument(Name, of: Subject, type: String)
  /// An exchange of this type cannot be with these arguments; as clients know the reason.
  case refusedExchange(reason: String)
  /// The exchange's type does not have such bindings; as clients know the reason.
  case refusedBinding(reason: String)
  /// A queue of its type cannot be so, such as not durable.
  case refusedProperty(String, queue: Name, in: Name)
  /// Streams have no such request.
  case unsupported(String, queue: Name, in: Name)
  /// Who reads a stream says how much may be unacknowledged.
  case needsPrefetch(stream: Name, in: Name)
  /// The argument is one for queues of another type than this one's.
  case refusedForType(Name, queue: Name, in: Name, type: String)
  /// The bytes of a message's properties are wrong.
  case malformedProperties(reason: String)
  /// A property of a message has an impossible value.
  case refusedMessage(reason: String)
  /// A message says that it is from another user than the one who sends it.
  case userMismatch(given: Name, user: Name)
  case refusedExpiration(String, reason: String)
  case refusedDelay(reason: String)
  case limitReached(Limit)

  // MARK: The broker's own failures

  /// The log cannot be written.
  case journalFailed(reason: String)
  /// The queue's next message cannot be read back.
  case unreadable(queue: Name)

  /// What a request is about, with the virtual host it is in.
  public enum Subject: Equatable, Sendable {
    case queue(Name, in: Name)
    case exchange(Name, in: Name)
  }

  /// What an argument was given for.
  public enum ArgumentHolder: Equatable, Sendable {
    case subject(Subject)
    case binding
  }

  /// What there would be too many of, or too much.
  public enum Limit: Equatable, Sendable {
    /// Consumers of a channel.
    case consumers(max: Int)
    /// Different priorities of a queue's consumers.
    case priorities(queue: Name, in: Name, max: Int)
    /// Queues or exchanges of a virtual host; the subject is the one too many.
    case declared(Subject, max: Int)
    /// Groups of consumers of a stream.
    case streamGroups(stream: Name, in: Name, max: Int)
    case groupMembers(group: Name, stream: Name, in: Name, max: Int)
    /// Bindings of a virtual host.
    case bindings(in: Name, max: Int)
    /// Arguments of one thing.
    case arguments(count: Int, max: Int)
    /// Routing keys of one message.
    case routingKeys(count: Int, max: Int)
    /// Steps of routing one message from an exchange on.
    case routingSteps(from: Name, in: Name, max: Int)
    /// The weight of a binding of an exchange that routes by a hash.
    case hashWeight(Int, max: Int)
    /// Numbers that the log has for durable queues or exchanges; `kind` is which.
    case numbers(kind: String, max: UInt32)
    /// Messages and answers of a transaction.
    case transactionOperations(max: Int)
    /// Bytes of a transaction's messages.
    case transactionBytes(max: Int)
    /// Steps of a commit.
    case transactionSteps(count: Int, max: Int)
    /// Bytes of the transactions of all clients.
    case transactionMemory(used: Int, max: Int)
    /// Bytes of memory; `what` was asked for, such as "a queue".
    case memory(for: String, used: Int, max: Int)
  }
}
