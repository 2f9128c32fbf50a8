import AMQP
import Base

/// Where a binding leads.
enum Destination {
  case queue(Queue)
  case exchange(Exchange)

  var id: UInt32 {
    switch self {
    case .queue(let queue): queue.id
    case .exchange(let exchange): exchange.id
    }
  }

  var object: ObjectIdentifier {
    switch self {
    case .queue(let queue): ObjectIdentifier(queue)
    case .exchange(let exchange): ObjectIdentifier(exchange)
    }
  }

  var isExchange: Bool { if case .exchange = self { true } else { false } }

  var isDurable: Bool {
    switch self {
    case .queue(let queue): queue.isDurable
    case .exchange(let exchange): exchange.isDurable
    }
  }
}

/// A row of the binding table: messages of an exchange with a key, or with headers, go to a queue
/// or to another exchange.
final class Binding {
  unowned(unsafe) let source: Exchange
  let destination: Destination
  let key: Name
  let arguments: FieldTable
  /// Compiled from the arguments when the source is a headers exchange.
  let predicate: HeadersPredicate?
  /// Where it stands in its exchange's list of bindings of the same place, so that it is removed
  /// without a search.
  var place = 0

  init(source: Exchange, destination: Destination, key: Name, arguments: FieldTable)
    throws(PeerError)
  {
    self.source = source
    self.destination = destination
    self.key = key
    self.arguments = arguments
    predicate = source.kind == .headers ? try HeadersPredicate(arguments) : nil
  }

  /// Survives a restart because both of its ends do.
  var isDurable: Bool { source.isDurable && destination.isDurable }
}

/// Bindings of one place in a router; adding and removing cost the same whatever their number.
struct BindingList {
  private(set) var bindings: [Binding] = []

  var isEmpty: Bool { bindings.isEmpty }

  mutating func add(_ binding: Binding) {
    binding.place = bindings.count
    bindings.append(binding)
  }

  mutating func remove(_ binding: Binding) {
    let last = bindings.removeLast()
    if last !== binding {
      last.place = binding.place
      bindings[binding.place] = last
    }
  }
}

/// What makes a binding the same as another: declaring it twice is declaring it once.
struct BindingIdentity: Hashable {
  let destination: UInt32
  let isToExchange: Bool
  let key: Name
  let arguments: [UInt8]

  init(destination: Destination, key: Name, arguments: FieldTable) {
    self.destination = destination.id
    isToExchange = destination.isExchange
    self.key = key
    if arguments.isEmpty {
      self.arguments = []
    } else {
      var buffer = ByteBuffer()
      buffer.append(arguments)
      self.arguments = Array(buffer.readable)
    }
  }
}
