import Client

/// What a load run is to do.
struct BenchOptions: Equatable {
  enum ExchangeType: String, CaseIterable {
    /// The nameless exchange: the routing key is the queue's name.
    case `default`
    case direct, fanout, topic, headers
  }

  var url = ConnectionURL()
  /// Stands in connection names and reports.
  var name = "bench"
  /// Connections that publish and that consume, each with one channel.
  var publishers = 1
  var consumers = 1
  var queues = 1
  /// The queue's name, or with many queues what their names begin with; empty makes one up.
  var queue = ""
  var queueType = ""
  /// Empty makes one up where the type needs one.
  var exchange = ""
  var exchangeType = ExchangeType.default
  /// Bindings that match nothing, besides those that do.
  var bindings = 0
  /// The body, in bytes.
  var size = 100
  var isPersistent = false
  var isDurable = false
  var isMandatory = false
  /// How many messages a publisher may have unconfirmed; 0 asks for no confirms.
  var confirmWindow = 0
  /// Unacknowledged deliveries that each consumer may have; 0 is no limit.
  var prefetch = 0
  /// Deliveries that one acknowledgement covers; 0 lets the broker acknowledge by itself.
  var acknowledgeEvery = 0
  /// Messages a second, of all publishers together; 0 is as many as possible.
  var rate = 0
  /// 0 goes on until a signal comes or `messages` are through.
  var durationSeconds = 10.0
  /// How many messages to publish, or to consume if there are no publishers; 0 counts none.
  var messages = 0
  var warmUpSeconds = 1.0
  /// How long nothing may arrive before what is missing counts as lost.
  var drainSeconds = 5.0
  /// Connections that are opened and held, and do nothing.
  var idleConnections = 0
  /// Queues and exchanges stay when the run has ended.
  var keepsQueues = false
  /// The broker's process, to tell what it uses.
  var brokerPID: Int32 = 0
  var printsJSON = false
  /// Nil prints progress if standard error is a terminal.
  var printsProgress: Bool?

  /// Only opens connections and holds them.
  var isIdle: Bool { idleConnections > 0 && publishers == 0 && consumers == 0 }

  /// Queues that one message goes to.
  var copies: Int { exchangeType == .fanout ? queues : 1 }

  /// How long the broker may take to confirm what is outstanding at the end.
  static let confirmSecondsMax = 30.0
}

/// Arguments that make no sense. The text is for people.
struct BenchUsageError: Error, Equatable, CustomStringConvertible {
  let description: String

  init(_ description: String) {
    self.description = description
  }
}
