import AMQP
import Base
import Filters

/// A message that the broker itself sends to one of its exchanges.
struct OwnMessage {
  let key: Name
  /// Exchange and key, each with its length in front.
  let names: [UInt8]
  let properties: [UInt8]
  /// Where the properties have the table of headers, with its length.
  let headers: Range<Int>
  let body: [UInt8]

  init(to exchange: Name, key: Name, _ properties: BasicProperties, body: [UInt8] = []) {
    self.key = key
    names = MessageBytes.encoded {
      $0.append(exchange)
      $0.append(key)
    }
    self.properties = MessageBytes.encoded { properties.encode(into: &$0) }
    headers = MessageBytes.headers(self.properties)
    self.body = body
  }

  /// About what it takes of memory.
  var bytes: Int { 160 + names.count + properties.count + body.count }
}

extension Broker {
  /// Sends a message to an exchange, and on to a limited number of queues; what no queue takes is gone.
  func send(_ message: OwnMessage, to exchange: Exchange, in vhost: VirtualHost, isPersistent: Bool)
  {
    let (names, properties, body) = (
      message.names.span.bytes, message.properties.span.bytes, message.body.span.bytes
    )
    let route: Route
    do throws(BrokerError) {
      let filtered = FilteredMessage(
        names: names, properties: properties, headers: message.headers, body: body)
      route = try vhost.route(exchange, keys: [message.key], filtered, refusesDelay: false)
    } catch {
      // Too many steps: as for a publisher, it reaches nobody.
      return
    }
    let isWide = route.count > WideStore.queuesMax
    storeMoved(
      names: names, properties: properties, body: body,
      in: isWide ? Route(those: route.destinations[..<WideStore.queuesMax]) : route,
      isPersistent: isPersistent && journal.failure == nil)
  }
}
