import AMQP
import Base
import Journal

/// What is said of a message where it is stored, whatever destinations it goes to.
struct Arrival: BitwiseCopyable {
  /// Its publisher wants it to survive.
  let isPersistent: Bool
  let priority: UInt8
  /// How long it lives by its own account, in milliseconds; nil for ever.
  let life: Int64?
  /// What its entries are to say of it.
  let marks: Entry.Flags
  /// Bytes of its body.
  let size: Int
}

/// Where messages end that exchanges route: a queue, or a stream. Both share one table of names and one binding
/// table, and all that routes, stores, confirms, declares, lists and writes checkpoints asks of them what is
/// here; nobody asks which of both it has.
///
/// A message is stored once for all its destinations (`Broker.storeWithSettings`): each is asked whether it
/// refuses it, then to prepare for it, which may fail, then to take it, and last it is told that all have it.
/// For plain destinations, which are queues that ask for nothing, that is one append to a lane
/// (`Broker.store`), without a call that is found out at run time.
///
/// A class and not a protocol, since what routing needs of a destination is then where it points to.
public class Destination {
  public let id: UInt32
  public let name: Name
  // Unsafe but sound: both outlive all destinations; the owner goes after them (`ExclusiveQueues`).
  unowned(unsafe) let vhost: VirtualHost
  unowned(unsafe) let broker: Broker
  /// Survives a restart.
  public let isDurable: Bool
  public let isAutoDelete: Bool
  /// Exclusive to this connection; nil for one of all.
  unowned(unsafe) let owner: Peer?
  public let isExclusive: Bool
  public let arguments: FieldTable
  /// It is a queue that takes messages by putting them behind the others.
  let isPlain: Bool
  /// It may refuse a message, or know that it is repeated.
  let mayRefuse: Bool
  /// It keeps messages that need not survive as well as it keeps others: the log gets them for its sake.
  let keepsAll: Bool
  /// What it knows repeated messages by; nil if it does not look for them.
  final var seen: SeenValues?
  /// It is out of the table; its bindings may still be there.
  final var isDeleted = false
  final var hadConsumers = false
  /// Where it is bound, so that deleting it costs what it is bound to.
  final var bindings = BindingList()
  /// Whose bindings those are that go with their last one.
  final var dependents = Dependents()
  /// Where the log says that it was declared.
  final var declaredAt = 0
  /// Where it is in the catalog, if it is durable.
  final var catalogIndex: Int?
  /// The last checkpoint that has it.
  final var snapshotNumber = 0
  /// Where it is among its owner's queues.
  final var exclusiveIndex = 0
  /// Set by the router to reach it once.
  final var routeMark: UInt64 = 0

  init(
    id: UInt32, name: Name, vhost: VirtualHost, isDurable: Bool, isAutoDelete: Bool, owner: Peer?,
    arguments: FieldTable, isPlain: Bool, mayRefuse: Bool = false, keepsAll: Bool = false
  ) {
    self.id = id
    self.name = name
    self.vhost = vhost
    broker = vhost.broker
    self.isDurable = isDurable
    self.isAutoDelete = isAutoDelete
    self.owner = owner
    isExclusive = owner != nil
    self.arguments = arguments
    self.isPlain = isPlain
    self.mayRefuse = mayRefuse
    self.keepsAll = keepsAll
  }

  // Unsafe but sound: of what is plain it is said that it is a queue.
  /// The queue that a plain one is.
  @inline(__always) final var plainQueue: Queue { unsafeDowncast(self, to: Queue.self) }

  private var isMissing: Never { invariantFailed("a kind of destination lacks something") }

  // MARK: Routing

  /// Clients' messages may be routed to it.
  var isRoutable: Bool { true }
  /// Clients can bind, consume and delete it.
  var isClients: Bool { true }

  // MARK: Storing

  /// It has no room for one more message, of which this is the size of the body.
  func isFull(for size: Int) -> Bool { false }

  /// Where messages go that are refused for want of room; nil if that is nowhere.
  var refusedTarget: Queue? { nil }

  /// It has this message of a producer, or one behind it, and does not take it again.
  func hasStored(_ mark: ProducerMark) -> Bool { false }

  /// It has taken a message of a producer; what the log is told of that is in the message's group.
  func stored(_ mark: ProducerMark) {}

  /// Makes ready what a message of this priority needs; what that declares is in the log before the message.
  func prepare(priority: UInt8) throws(BrokerError) {}

  /// So many messages more, with so many bytes of bodies, are not too much.
  func hasRoom(for count: Int, bytes: Int) -> Bool { true }

  /// What a commit that brings a message takes here beside storing it, in steps.
  var commitSteps: Int { 0 }

  /// Takes a message that was stored, and whose block was retained for that; where `place` is given it writes
  /// there which of its lanes has it, and under which number.
  func take(
    _ message: Broker.StoredMessage, _ arrival: Arrival, at place: UnsafeMutableRawPointer?
  ) { isMissing }

  /// All destinations have the message.
  func taken(_ arrival: Arrival) {}

  /// The next message that it takes is one that the broker itself moves: nobody gets it before the log has
  /// that.
  func awaitMove(priority: UInt8) throws(BrokerError) {}

  // MARK: Use

  /// The queue that a new consumer with these arguments gets its messages from: the only one if `isExclusive`,
  /// with at most `prefetch` unacknowledged ones, of which 0 is any number, unless `isAutomatic`.
  func source(
    forConsumer arguments: FieldTable, isExclusive: Bool, isAutomatic: Bool, prefetch: Int
  ) throws(BrokerError) -> Queue { isMissing }

  /// The queue that somebody takes single messages from.
  func source() throws(BrokerError) -> Queue { isMissing }

  /// A consumer ended: it may go with its last one.
  func consumerLeft() {
    if Sabotage.is(.keepsAutoDeleteQueue) { return }
    if isAutoDelete, hadConsumers, consumerCount == 0 { vhost.remove(self, .unused) }
  }

  /// Somebody has asked for it.
  func used() {}

  /// Its consumers take what they can, before something of it is dropped or refused.
  func serve() {}

  /// Deletes what waits for consumers; returns how many messages that is.
  func purge(for peer: Peer) throws(BrokerError) -> Int { isMissing }

  // MARK: Listing

  /// The arguments with which it would be declared to be as it is; `arguments` are those with which it was.
  var presentArguments: FieldTable { arguments }
  public var readyCount: Int { isMissing }
  public var unacknowledgedCount: Int { 0 }
  public var messageCount: Int { readyCount + unacknowledgedCount }
  public var consumerCount: Int { isMissing }
  /// About what it takes of memory, without messages and bindings.
  var memoryBytes: Int { isMissing }

  // MARK: The log

  /// Its lanes' ids, by which the log and checkpoints speak of its messages.
  var laneIDs: [UInt32] { isMissing }
  /// Lanes of which messages are in lane files.
  var movingLanes: [Lane] { [] }
  /// What declares its lanes behind itself, those of ids below `newLanes`; a checkpoint has their states too.
  func laneRecords(below newLanes: UInt32, withStates: Bool) -> [RawRecord] { isMissing }
  /// What else a checkpoint is to have of it, in so many pieces. New ones come behind the others.
  var pieceCount: Int { 0 }
  func records(ofPiece index: Int, below newLanes: UInt32) -> [RawRecord] { isMissing }
  /// The log was read.
  func recovered() {}
  /// The broker stops in order: what it knows of deliveries goes into the log.
  func tightenHorizon() {}

  // MARK: The end

  /// It is deleted: consumers end, and what it has goes.
  func drop() { isMissing }
  /// Whether nobody has something of it any more.
  var isDone: Bool { isMissing }
}
