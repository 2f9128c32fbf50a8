import Client

/// What a load run is to do. The defaults stand with the command's options.
struct BenchOptions: Equatable {
  enum ExchangeType: String, CaseIterable, Sendable {
    /// The nameless exchange: the routing key is the queue's name.
    case `default`
    case direct, fanout, topic, headers
  }

  var url: ConnectionURL
  /// Stands in connection names and reports.
  var name = ""
  /// Connections that publish and that consume, each with one channel.
  var publishers = 0
  var consumers = 0
  var queues = 0
  /// The queue's name, or with many queues what their names begin with; empty makes one up.
  var queue = ""
  var queueType = ""
  /// Further arguments that queues are declared with.
  var arguments = FieldTable()
  /// Arguments that consumers begin with.
  var consumerArguments = FieldTable()
  /// Empty makes one up where the type needs one.
  var exchange = ""
  var exchangeType = ExchangeType.default
  /// Bindings that match nothing, besides those that do.
  var bindings = 0
  /// The body, in bytes.
  var size = 0
  var isPersistent = false
  var isDurable = false
  var isMandatory = false
  /// Messages have priorities from 0 to this one, in turn; nil if they have none.
  var priorityMax: Int?
  /// How long messages live, in milliseconds; nil for ever.
  var expiration: Int?
  /// Messages are kept back by up to so many milliseconds, each by another time; 0 keeps back none.
  var delayMax = 0
  /// How many messages a publisher may have unconfirmed; 0 asks for no confirms.
  var confirmWindow = 0
  /// Messages of a transaction; 0 publishes without transactions.
  var transaction = 0
  /// Unacknowledged deliveries that each consumer may have; 0 is no limit.
  var prefetch = 0
  /// Deliveries that one acknowledgement covers; 0 lets the broker acknowledge by itself.
  var acknowledgeEvery = 0
  /// Messages a second, of all publishers together; 0 is as many as possible.
  var rate = 0
  /// 0 goes on until a signal comes or `messages` are through.
  var durationSeconds = 0.0
  /// How many messages to publish, or to consume if there are no publishers; 0 counts none.
  var messages = 0
  var warmUpSeconds = 0.0
  /// How long nothing may arrive before what is missing counts as lost.
  var drainSeconds = 0.0
  /// Connections that are opened and held, and do nothing.
  var idleConnections = 0
  /// Queues and exchanges stay when the run has ended.
  var keepsQueues = false
  /// The broker's process, to tell what it uses.
  var brokerPID: Int32?
  var printsJSON = false
  var printsProgress = false

  /// The broker says which messages it has taken over.
  var hasConfirms: Bool { confirmWindow > 0 || transaction > 0 }

  /// Only opens connections and holds them.
  var isIdle: Bool { idleConnections > 0 && publishers == 0 && consumers == 0 }

  /// Messages arrive in the order in which they were published.
  var isOrdered: Bool { (priorityMax ?? 0) == 0 && delayMax == 0 && !isStreamOfParts }

  private var isStream: Bool {
    queueType == "stream" || arguments["x-queue-type"] == .string("stream")
  }

  /// Records of one partition are in order, and those of several are not.
  private var isStreamOfParts: Bool {
    isStream && (arguments["x-stream-partitions"]?.integer ?? 1) > 1
  }

  /// Every consumer gets every message: of a stream, and in no group.
  var isReadByAll: Bool { isStream && consumerArguments["x-stream-group"] == nil }

  /// How often one message is delivered.
  var copies: Int {
    (exchangeType == .fanout ? queues : 1) * (isReadByAll ? max(1, consumers / queues) : 1)
  }

  /// The largest body, in bytes.
  static let sizeMax = 64 << 20
  /// How long the broker may take to confirm what is outstanding at the end.
  static let confirmSecondsMax = 30.0
}
