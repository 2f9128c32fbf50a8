import AMQP
import Base
import Broker
import Testing

@testable import Server

/// What the broker refuses is told to clients as the table of replies has it.
@Suite struct BrokerErrorTests {
  private static let queue = BrokerError.Subject.queue("n", in: "v")
  private static let exchange = BrokerError.Subject.exchange("n", in: "v")

  /// Each refusal with the name of its text and what stands for the placeholders, in their order.
  static let replies: [(BrokerError, String, [String])] = [
    (.notFound(queue), "no-queue", ["n", "v"]),
    (.notFound(exchange), "no-exchange", ["n", "v"]),
    (.noCurrentQueue, "no-previous-queue", []),
    (.reservedName(queue), "reserved-queue-name", ["n"]),
    (.reservedName(exchange), "reserved-exchange-name", ["n"]),
    (.isPredeclared(exchange: "n", in: "v"), "system-exchange", ["n", "v"]),
    (.isDefaultExchange, "default-exchange", []),
    (.isInternal(exchange: "n", in: "v"), "internal-exchange", ["n", "v"]),
    (
      .existsOtherwise(queue, property: "p", wanted: "w", present: "c"),
      "inequivalent-queue-flag", ["p", "n", "v", "w", "c"]
    ),
    (
      .existsOtherwise(exchange, property: "p", wanted: "w", present: "c"),
      "inequivalent-exchange-flag", ["p", "n", "v", "w", "c"]
    ),
    (
      .existsWithArgument(queue, argument: "a", wanted: "w", present: "c"),
      "inequivalent-queue-arg", ["a", "n", "v", "w", "c"]
    ),
    (
      .existsWithArgument(exchange, argument: "a", wanted: "w", present: "c"),
      "inequivalent-exchange-arg", ["a", "n", "v", "w", "c"]
    ),
    (.locked(queue: "n", in: "v"), "queue-locked", ["n", "v"]),
    (.inUse(queue), "queue-in-use", ["n", "v"]),
    (.inUse(exchange), "exchange-in-use", ["n", "v"]),
    (.inExclusiveUse(queue: "n", in: "v"), "queue-in-exclusive-use", ["n", "v"]),
    (.notEmpty(queue: "n", in: "v"), "queue-not-empty", ["n", "v"]),
    (.consumerTagInUse("t"), "consumer-tag-reused", ["t"]),
    (.repliesNeedNoAcknowledgement, "reply-consumer-acks", []),
    (.repliesAreConsumed, "reply-consumer-set", []),
    (.repliesAreNotConsumed, "no-reply-consumer", []),
    (.unknownDelivery(7), "unknown-delivery-tag", ["7"]),
    (.lockExpired(7), "lock-expired", ["7"]),
    (.unknownExchangeType("t"), "unknown-exchange-type", ["t"]),
    (
      .refusedArgument("a", of: .subject(queue), reason: "r"),
      "invalid-queue-arg", ["a", "n", "v", "r"]
    ),
    (
      .refusedArgument("a", of: .subject(exchange), reason: "r"),
      "invalid-exchange-arg", ["a", "n", "v", "r"]
    ),
    (.refusedArgument("a", of: .binding, reason: "r"), "invalid-binding-arg", ["a", "r"]),
    (.refusedExchange(reason: "r"), "invalid-exchange", ["r"]),
    (.refusedBinding(reason: "r"), "invalid-binding", ["r"]),
    (
      .refusedForType("a", queue: "n", in: "v", type: "classic"),
      "argument-of-other-type", ["a", "n", "v", "rabbit_classic_queue"]
    ),
    (
      .refusedProperty("p", queue: "n", in: "v"), "invalid-queue-property", ["p", "n", "v"]
    ),
    (.unsupported("basic.get", queue: "n", in: "v"), "not-of-streams", ["basic.get", "n", "v"]),
    (.needsPrefetch(stream: "n", in: "v"), "no-prefetch", ["n", "v"]),
    (
      .limitReached(.streamGroups(stream: "n", in: "v", max: 5)), "too-many-groups",
      ["n", "v", "5"]
    ),
    (
      .limitReached(.groupMembers(group: "g", stream: "n", in: "v", max: 5)), "too-many-members",
      ["g", "n", "v", "5"]
    ),
    (.isNotTransactional, "not-transactional", []),
    (.isConfirming, "confirm-to-transactions", []),
    (.isTransactional, "transactions-to-confirm", []),
    (.refusesCommit(queue: "n", in: "v"), "commit-refused", ["n", "v"]),
    (.malformedProperties(reason: "r"), "malformed-header", ["r"]),
    (.refusedMessage(reason: "r"), "invalid-header", ["r"]),
    (.userMismatch(given: "g", user: "u"), "user-id-mismatch", ["g", "u"]),
    (.refusedExpiration("x", reason: "r"), "invalid-expiration", ["x", "r"]),
    (.mistypedArgument("a", of: queue, type: "t"), "mistyped-queue-arg", ["t", "a", "n", "v"]),
    (
      .mistypedArgument("a", of: exchange, type: "t"),
      "mistyped-exchange-arg", ["t", "a", "n", "v"]
    ),
    (.journalFailed(reason: "r"), "journal-failed", ["r"]),
    (.unreadable(queue: "n"), "message-unreadable", ["n"]),
    (.limitReached(.consumers(max: 5)), "too-many-consumers", ["5"]),
    (.limitReached(.hashWeight(7, max: 5)), "hash-weight-too-high", ["5", "7"]),
    (
      .limitReached(.priorities(queue: "n", in: "v", max: 5)), "too-many-priorities",
      ["n", "v", "5"]
    ),
    (.limitReached(.declared(queue, max: 5)), "too-many-queues", ["n", "v", "5"]),
    (.limitReached(.declared(exchange, max: 5)), "too-many-exchanges", ["n", "v", "5"]),
    (.limitReached(.bindings(in: "v", max: 5)), "too-many-bindings", ["v", "5"]),
    (.limitReached(.arguments(count: 6, max: 5)), "too-many-arguments", ["6", "5"]),
    (.limitReached(.routingKeys(count: 6, max: 5)), "too-many-routing-keys", ["6", "5"]),
    (
      .limitReached(.routingSteps(from: "n", in: "v", max: 5)), "routing-too-long",
      ["n", "v", "5"]
    ),
    (.limitReached(.numbers(kind: "queue", max: 5)), "no-number-left", ["queue", "5"]),
    (.limitReached(.transactionOperations(max: 5)), "transaction-too-long", ["5"]),
    (.limitReached(.transactionBytes(max: 5)), "transaction-too-large", ["5"]),
    (.limitReached(.transactionSteps(count: 6, max: 5)), "commit-too-long", ["6", "5"]),
    (.limitReached(.transactionMemory(used: 6, max: 5)), "transactions-too-large", ["6", "5"]),
    (
      .limitReached(.memory(for: "a queue", used: 6, max: 5)), "out-of-memory",
      ["a queue", "6", "5"]
    ),
  ]

  @Test(arguments: replies)
  func aRefusalIsTheReplyOfTheTable(
    _ error: BrokerError, _ name: String, _ arguments: [String]
  ) throws {
    let text = try #require(ReplyTable.texts[name])
    let reply = PeerError(error)
    #expect(reply.code.rawValue == text.code.number)
    #expect(reply.replyText == text.filled(arguments))
  }

  /// Every publish may throw it: it must fit into a register.
  @Test func aRefusalIsOneWord() {
    #expect(MemoryLayout<BrokerError>.size == 8)
  }
}
