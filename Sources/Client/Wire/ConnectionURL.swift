/// Where a broker is and how to log in, as people write it:
///
///     amqp://user:password@host:port/vhost?heartbeat=10&connection_timeout=5000
///
/// Whatever is missing has RabbitMQ's default: guest, guest, localhost, 5672, vhost `/`. User,
/// password, host and vhost may be percent-encoded; an IPv6 address stands in brackets. The vhost
/// is the whole path behind its first `/`, so the default one is `/%2f` or no path at all. (By the
/// letter `amqp://host/` would mean the vhost with the empty name, which no broker has; here, as in
/// most tools, it means `/`.) Parameters that are not listed below are ignored, since one URL often
/// serves several tools.
public struct ConnectionURL: Equatable, Sendable {
  public var user = "guest"
  public var password = "guest"
  public var host = "localhost"
  public var port = 5672
  public var virtualHost = "/"
  /// `heartbeat`: the interval to ask for, 0 for none; nil leaves it to the broker.
  public var heartbeatSeconds: UInt16?
  /// `connection_timeout`, for the TCP connection and the handshake together.
  public var connectionTimeoutMilliseconds: Int32 = 10_000
  /// `frame_max`: the largest frame to ask for; 0 leaves it to the broker.
  public var frameMax: UInt32 = 131_072
  /// `channel_max`: how many channels to ask for; 0 leaves it to the broker.
  public var channelMax: UInt16 = 0

  /// The broker on this machine, with every default.
  public init() {}

  public init(_ text: String) throws(ClientError) {
    var rest = try Self.withoutScheme(text)
    if let query = rest.cut(at: "?") {
      try parseQuery(query)
    }
    if let path = rest.cut(at: "/"), !path.isEmpty {
      virtualHost = try Self.decoded(path, "virtual host")
    }
    if let at = rest.lastIndex(of: "@") {
      try parseLogin(rest[..<at])
      rest = rest[rest.index(after: at)...]
    }
    try parseAuthority(rest)
  }

  private static func withoutScheme(_ text: String) throws(ClientError) -> Substring {
    var rest = Substring(text)
    guard let separator = rest.firstIndex(of: ":"), rest[separator...].hasPrefix("://") else {
      throw .malformedURL("it must begin with amqp://")
    }
    let scheme = rest[..<separator].lowercased()
    rest = rest[separator...].dropFirst(3)
    switch scheme {
    case "amqp": return rest
    case "amqps": throw .unsupported("TLS is not supported yet: use an amqp:// URL")
    default: throw .malformedURL("the scheme is \(scheme) and must be amqp")
    }
  }

  private mutating func parseLogin(_ login: Substring) throws(ClientError) {
    var login = login
    if let secret = login.cut(at: ":") { password = try Self.decoded(secret, "password") }
    if !login.isEmpty { user = try Self.decoded(login, "user") }
  }

  private mutating func parseAuthority(_ authority: Substring) throws(ClientError) {
    var name = authority
    var digits: Substring?
    if name.hasPrefix("[") {
      guard let end = name.firstIndex(of: "]") else {
        throw .malformedURL("the IPv6 address has no closing bracket")
      }
      let tail = name[name.index(after: end)...]
      guard tail.isEmpty || tail.hasPrefix(":") else {
        throw .malformedURL("after the IPv6 address stands \(tail)")
      }
      digits = tail.isEmpty ? nil : tail.dropFirst()
      name = name[..<end].dropFirst()
    } else {
      digits = name.cut(at: ":")
    }
    if !name.isEmpty { host = try Self.decoded(name, "host") }
    if let digits, !digits.isEmpty {
      guard let number = Int(digits), (1...65_535).contains(number) else {
        throw .malformedURL("the port is \(digits) and must be 1 to 65535")
      }
      port = number
    }
  }

  private mutating func parseQuery(_ query: Substring) throws(ClientError) {
    for parameter in query.split(separator: "&") {
      var name = parameter
      let value = name.cut(at: "=") ?? ""
      switch name {
      case "heartbeat": heartbeatSeconds = try Self.number(name, value)
      case "connection_timeout": connectionTimeoutMilliseconds = try Self.number(name, value)
      case "frame_max": frameMax = try Self.number(name, value)
      case "channel_max": channelMax = try Self.number(name, value)
      default: break
      }
    }
  }

  private static func number<Number: FixedWidthInteger>(
    _ name: Substring, _ value: Substring
  ) throws(ClientError) -> Number {
    guard let number = Number(value), number >= 0 else {
      throw .malformedURL("\(name) is \(value) and must be 0 to \(Number.max)")
    }
    return number
  }

  /// The text with its `%xx` replaced; what comes out must be UTF-8.
  private static func decoded(
    _ text: Substring, _ part: String
  ) throws(ClientError) -> String {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard
        let high = rest.popFirst().flatMap(hexValue),
        let low = rest.popFirst().flatMap(hexValue)
      else {
        throw .malformedURL("the \(part) has a % without two hexadecimal digits")
      }
      bytes.append(high << 4 | low)
    }
    guard let result = String(validating: bytes, as: UTF8.self) else {
      throw .malformedURL("the \(part) is not UTF-8")
    }
    return result
  }

  private static func hexValue(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}

extension ConnectionURL: CustomStringConvertible {
  /// The URL without the password and the parameters, for logs and messages.
  public var description: String {
    let name = host.contains(":") ? "[\(host)]" : host
    let path = virtualHost == "/" ? "" : "/" + Self.encoded(virtualHost)
    return "amqp://\(Self.encoded(user))@\(name):\(port)\(path)"
  }

  private static func encoded(_ text: String) -> String {
    var result = ""
    for byte in text.utf8 {
      switch Unicode.Scalar(byte) {
      case "a"..."z", "A"..."Z", "0"..."9", "-", ".", "_", "~":
        result.unicodeScalars.append(Unicode.Scalar(byte))
      default:
        result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
      }
    }
    return result
  }
}

extension Substring {
  /// Cuts the text at the first `separator`: what stands in front stays, what stands behind is the
  /// result. Nil, and nothing changes, if there is no separator.
  fileprivate mutating func cut(at separator: Character) -> Substring? {
    guard let index = firstIndex(of: separator) else { return nil }
    let behind = self[self.index(after: index)...]
    self = self[..<index]
    return behind
  }
}
