import IO

/// Where to accept clients, as people write it: `HOST:PORT`, `[IPv6]:PORT` or `*:PORT`.
struct ListenAddress {
  /// More than one where a word stands for several; the IPv6 half of those comes first.
  let addresses: [SocketAddress]

  /// Nil if `text` is no such word.
  init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":") else { return nil }
    let digits = text[text.index(after: colon)...]
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }),
      let port = Int(digits), port <= 65_535
    else { return nil }
    var host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = String(host.dropFirst().dropLast())
      guard host.contains(":") else { return nil }
    } else if host.contains(":") {
      return nil
    }
    addresses =
      host == "*" || host.isEmpty
      ? [SocketAddress(host: "::", port: port), SocketAddress(host: "0.0.0.0", port: port)]
      : [SocketAddress(host: host, port: port)]
  }
}
