import Base

/// The routing keys of events. Those up to the alarms are RabbitMQ's.
enum EventKey {
  static let queueCreated: Name = "queue.created"
  static let queueDeleted: Name = "queue.deleted"
  static let exchangeCreated: Name = "exchange.created"
  static let exchangeDeleted: Name = "exchange.deleted"
  static let bindingCreated: Name = "binding.created"
  static let bindingDeleted: Name = "binding.deleted"
  static let connectionCreated: Name = "connection.created"
  static let connectionClosed: Name = "connection.closed"
  static let channelCreated: Name = "channel.created"
  static let channelClosed: Name = "channel.closed"
  static let consumerCreated: Name = "consumer.created"
  static let consumerDeleted: Name = "consumer.deleted"
  static let loginSucceeded: Name = "user.authentication.success"
  static let loginFailed: Name = "user.authentication.failure"
  static let alarmSet: Name = "alarm.set"
  static let alarmCleared: Name = "alarm.cleared"
  static let consumerTimedOut: Name = "consumer.timed_out"
  static let journalFailed: Name = "journal.failed"
  static let eventsDropped: Name = "events.dropped"
  static let tracesDropped: Name = "trace.dropped"
}

/// The headers of events.
enum EventHeader {
  static let name: Name = "name"
  static let vhost: Name = "vhost"
  static let user: Name = "user"
  static let actor: Name = "user_who_performed_action"
  static let milliseconds: Name = "timestamp_in_ms"
  static let node: Name = "node"
  static let reason: Name = "reason"
  static let count: Name = "count"
  static let type: Name = "type"
  static let isDurable: Name = "durable"
  static let isAutoDelete: Name = "auto_delete"
  static let isExclusive: Name = "exclusive"
  static let isInternal: Name = "internal"
  static let arguments: Name = "arguments"
  static let sourceName: Name = "source_name"
  static let sourceKind: Name = "source_kind"
  static let destinationName: Name = "destination_name"
  static let destinationKind: Name = "destination_kind"
  static let routingKey: Name = "routing_key"
  static let process: Name = "pid"
  static let connection: Name = "connection"
  static let number: Name = "number"
  static let consumerTag: Name = "consumer_tag"
  static let queue: Name = "queue"
  static let channel: Name = "channel"
  static let needsAcknowledgement: Name = "ack_required"
  static let prefetch: Name = "prefetch_count"
  static let timeout: Name = "milliseconds"
  static let mechanism: Name = "auth_mechanism"
  static let error: Name = "error"
  static let source: Name = "source"
}

/// Who does what happens by itself, as RabbitMQ calls it.
enum Actor {
  static let broker: Name = "rmq-internal"
}

/// Why a queue goes; as listeners read it.
enum QueueEnding: String {
  case deleted
  case unused = "auto_delete"
  case exclusive
  case expired
}
