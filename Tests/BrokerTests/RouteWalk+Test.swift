import AMQP
import Base
import Filters

@testable import Broker

extension RouteWalk {
  /// The only walk at its time, of any length; to be forgotten before the next one.
  static var first: RouteWalk { RouteWalk(mark: 1, stepsMax: .max) }

  /// The names of the destinations that were reached.
  var names: [Name] { destinations.map { $0.takeUnretainedValue().name }.sorted() }

  /// Lets another walk reach the same destinations.
  func forget() {
    for queue in destinations { queue.takeUnretainedValue().routeMark = 0 }
  }
}

extension FilteredMessage {
  static var nothing: FilteredMessage {
    @_lifetime(immortal)
    get {
      FilteredMessage(names: RawSpan(), properties: RawSpan(), headers: 0..<0, body: RawSpan())
    }
  }
}

extension [UInt8] {
  /// A message of which all else is unknown; these bytes are a table with its length.
  var asHeaders: FilteredMessage {
    @_lifetime(borrow self)
    get {
      FilteredMessage(
        names: RawSpan(), properties: span.bytes, headers: 0..<count, body: RawSpan())
    }
  }
}

extension VirtualHost {
  /// A queue that is in no table.
  func looseQueue(_ name: Name) -> Queue {
    Queue(
      id: broker.queueNumbers.take(isDurable: false)!,
      lane: broker.laneNumbers.take(isDurable: false)!, name: name, vhost: self, isDurable: false,
      isAutoDelete: false,
      owner: nil, arguments: [:])
  }
}

/// What a router refers to without keeping it alive, as the virtual host does.
final class KeptBindings {
  private var bindings: [Binding] = []

  func keep(_ binding: Binding) -> Binding {
    bindings.append(binding)
    return binding
  }
}

extension FieldTable {
  /// The same from its bytes: arrays that share their memory are equal even if they hold what equals
  /// nothing.
  var copied: FieldTable {
    get throws {
      let bytes = encoded
      var reader = ByteReader(bytes.span.bytes)
      return try reader.fieldTable()
    }
  }

  /// As it is on the wire, with its length.
  var encoded: [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(self)
    return Array(buffer.readable)
  }
}
