import AMQP
import Base
import Broker

/// What each of the broker's refusals is in AMQP: its code and text in the table of replies.
extension PeerError {
  init(_ error: BrokerError) {
    self =
      switch error {
      case .notFound(.queue(let name, let vhost)): .noQueue(queue: name, vhost: vhost)
      case .notFound(.exchange(let name, let vhost)): .noExchange(exchange: name, vhost: vhost)
      case .noCurrentQueue: .noPreviousQueue
      case .reservedName(.queue(let name, _)): .reservedQueueName(queue: name)
      case .reservedName(.exchange(let name, _)): .reservedExchangeName(exchange: name)
      case .isPredeclared(let name, let vhost): .systemExchange(exchange: name, vhost: vhost)
      case .isDefaultExchange: .defaultExchange
      case .isDelayedQueue(let name, let vhost): .delayedQueue(queue: name, vhost: vhost)
      case .isInternal(let name, let vhost): .internalExchange(exchange: name, vhost: vhost)
      case .existsOtherwise(.queue(let name, let vhost), let property, let wanted, let present):
        .inequivalentQueueFlag(
          argument: property, queue: name, vhost: vhost, received: wanted, current: present)
      case .existsOtherwise(.exchange(let name, let vhost), let property, let wanted, let present):
        .inequivalentExchangeFlag(
          argument: property, exchange: name, vhost: vhost, received: wanted, current: present)
      case .existsWithArgument(
        .queue(let name, let vhost), let argument, let wanted, let present):
        .inequivalentQueueArg(
          argument: argument, queue: name, vhost: vhost, received: wanted, current: present)
      case .existsWithArgument(
        .exchange(let name, let vhost), let argument, let wanted, let present):
        .inequivalentExchangeArg(
          argument: argument, exchange: name, vhost: vhost, received: wanted, current: present)
      case .locked(let name, let vhost): .queueLocked(queue: name, vhost: vhost)
      case .inUse(.queue(let name, let vhost)): .queueInUse(queue: name, vhost: vhost)
      case .inUse(.exchange(let name, let vhost)): .exchangeInUse(exchange: name, vhost: vhost)
      case .inExclusiveUse(let name, let vhost): .queueInExclusiveUse(queue: name, vhost: vhost)
      case .notEmpty(let name, let vhost): .queueNotEmpty(queue: name, vhost: vhost)
      case .consumerTagInUse(let tag): .consumerTagReused(tag: tag)
      case .repliesNeedNoAcknowledgement: .replyConsumerAcks
      case .repliesAreConsumed: .replyConsumerSet
      case .repliesAreNotConsumed: .noReplyConsumer
      case .unknownDelivery(let tag): .unknownDeliveryTag(tag: tag)
      case .unknownExchangeType(let type): .unknownExchangeType(type: type)
      case .refusedArgument(let argument, .subject(.queue(let name, let vhost)), let reason):
        .invalidQueueArg(argument: argument, queue: name, vhost: vhost, reason: reason)
      case .refusedArgument(let argument, .subject(.exchange(let name, let vhost)), let reason):
        .invalidExchangeArg(argument: argument, exchange: name, vhost: vhost, reason: reason)
      case .refusedArgument(let argument, .binding, let reason):
        .invalidBindingArg(argument: argument, reason: reason)
      case .mistypedArgument(let argument, .queue(let name, let vhost), let type):
        .mistypedQueueArg(type: type, argument: argument, queue: name, vhost: vhost)
      case .mistypedArgument(let argument, .exchange(let name, let vhost), let type):
        .mistypedExchangeArg(type: type, argument: argument, exchange: name, vhost: vhost)
      case .refusedExchange(let reason): .invalidExchange(reason: reason)
      case .refusedBinding(let reason): .invalidBinding(reason: reason)
      case .refusedForType(let argument, let name, let vhost, let type):
        // Clients know the types by the names of the modules that implement them elsewhere.
        .argumentOfOtherType(
          argument: argument, queue: name, vhost: vhost, type: "rabbit_\(type)_queue")
      case .refusedProperty(let property, let name, let vhost):
        .invalidQueueProperty(property: property, queue: name, vhost: vhost)
      case .unsupported(let request, let name, let vhost):
        .notOfStreams(request: request, queue: name, vhost: vhost)
      case .needsPrefetch(let name, let vhost): .noPrefetch(queue: name, vhost: vhost)
      case .isNotTransactional: .notTransactional
      case .isConfirming: .confirmToTransactions
      case .isTransactional: .transactionsToConfirm
      case .lockExpired(let tag): .lockExpired(tag: tag)
      case .refusesCommit(let name, let vhost): .commitRefused(queue: name, vhost: vhost)
      case .malformedProperties(let reason): .malformedHeader(reason: reason)
      case .refusedMessage(let reason): .invalidHeader(reason: reason)
      case .userMismatch(let given, let user): .userIdMismatch(given: given, user: user)
      case .refusedExpiration(let value, let reason):
        .invalidExpiration(value: value, reason: reason)
      case .refusedDelay(let reason): .invalidDelay(reason: reason)
      case .limitReached(let limit): PeerError(limit)
      case .journalFailed(let reason): .journalFailed(reason: reason)
      case .unreadable(let queue): .messageUnreadable(queue: queue)
      }
  }

  private init(_ limit: BrokerError.Limit) {
    self =
      switch limit {
      case .streamGroups(let name, let vhost, let max):
        .tooManyGroups(queue: name, vhost: vhost, limit: max)
      case .groupMembers(let group, let name, let vhost, let max):
        .tooManyMembers(group: group, queue: name, vhost: vhost, limit: max)
      case .consumers(let max): .tooManyConsumers(limit: max)
      case .priorities(let queue, let vhost, let max):
        .tooManyPriorities(queue: queue, vhost: vhost, limit: max)
      case .declared(.queue(let name, let vhost), let max):
        .tooManyQueues(queue: name, vhost: vhost, limit: max)
      case .declared(.exchange(let name, let vhost), let max):
        .tooManyExchanges(exchange: name, vhost: vhost, limit: max)
      case .bindings(let vhost, let max): .tooManyBindings(vhost: vhost, limit: max)
      case .arguments(let count, let max): .tooManyArguments(count: count, limit: max)
      case .routingKeys(let count, let max): .tooManyRoutingKeys(count: count, limit: max)
      case .routingSteps(let name, let vhost, let max):
        .routingTooLong(exchange: name, vhost: vhost, limit: max)
      case .hashWeight(let weight, let max): .hashWeightTooHigh(limit: max, weight: weight)
      case .numbers(let kind, let max): .noNumberLeft(kind: kind, limit: max)
      case .transactionOperations(let max): .transactionTooLong(limit: max)
      case .transactionBytes(let max): .transactionTooLarge(limit: max)
      case .transactionSteps(let count, let max): .commitTooLong(count: count, limit: max)
      case .transactionMemory(let used, let max): .transactionsTooLarge(used: used, limit: max)
      case .memory(let what, let used, let max): .outOfMemory(what: what, used: used, limit: max)
      }
  }
}
