import CSystem
import Glibc

/// An address as people write it: `127.0.0.1:5672`, `[::1]:5672`.
public struct SocketAddress: Equatable, Sendable, CustomStringConvertible {
  public let host: String
  public let port: Int

  public init(host: String, port: Int) {
    self.host = host
    self.port = port
  }

  public var isLoopback: Bool {
    host == "::1" || host.hasPrefix("127.") || host.hasPrefix("::ffff:127.")
  }

  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

  init(_ storage: sockaddr_storage) {
    var storage = storage
    var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    var service = [CChar](repeating: 0, count: Int(NI_MAXSERV))
    let size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let failed = withUnsafePointer(to: &storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        getnameinfo(
          $0, size, &host, socklen_t(host.count), &service, socklen_t(service.count),
          NI_NUMERICHOST | NI_NUMERICSERV)
      }
    }
    self.host = failed == 0 ? Self.text(host) : "unknown"
    port = failed == 0 ? Int(Self.text(service)) ?? 0 : 0
  }

  private static func text(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// A TCP socket.
public struct Socket: ~Copyable, Sendable {
  public let descriptor: FileDescriptor

  init(owning raw: Int32) {
    descriptor = FileDescriptor(owning: raw)
  }

  /// Takes an address, numeric or resolvable, for `listen`; port 0 lets the kernel choose. Clients are
  /// refused until then; nobody else can listen there any more. `isIPv6Only` keeps an IPv6 socket from
  /// taking IPv4 clients too.
  public static func bind(
    _ address: SocketAddress, isIPv6Only: Bool = true
  ) throws(SystemError) -> Socket {
    var lastError = SystemError("listen on \(address)", code: EADDRNOTAVAIL)
    for candidate in try resolve(address, isPassive: true) {
      let raw = Glibc.socket(candidate.family, streamType | nonBlockingFlags, 0)
      guard raw >= 0 else {
        lastError = SystemError("listen on \(address)")
        continue
      }
      let socket = Socket(owning: raw)
      socket.set(SOL_SOCKET, SO_REUSEADDR, 1)
      if candidate.family == AF_INET6 {
        socket.set(Int32(IPPROTO_IPV6), IPV6_V6ONLY, isIPv6Only ? 1 : 0)
      }
      if candidate.withAddress({ Glibc.bind(raw, $0, $1) }) == 0 { return socket }
      lastError = SystemError("listen on \(address)")
    }
    throw lastError
  }

  /// Lets clients connect to a socket made by `bind`; `backlog` of them wait for `accept` at most.
  public func listen(backlog: Int32 = 4096) throws(SystemError) {
    guard Glibc.listen(descriptor.raw, backlog) == 0 else {
      throw SystemError("listen on \(localAddress)")
    }
  }

  /// Connects and waits for it, at most `timeoutMilliseconds`; the socket is blocking afterwards.
  public static func connect(
    _ address: SocketAddress, timeoutMilliseconds: Int32 = 10_000
  ) throws(SystemError) -> Socket {
    var lastError = SystemError("connect to \(address)", code: EADDRNOTAVAIL)
    for candidate in try resolve(address, isPassive: false) {
      let raw = Glibc.socket(candidate.family, streamType | nonBlockingFlags, 0)
      guard raw >= 0 else { continue }
      let socket = Socket(owning: raw)
      if let error = socket.finishConnect(candidate, timeoutMilliseconds) {
        lastError = SystemError("connect to \(address)", code: error)
        continue
      }
      socket.setBlocking(true)
      socket.setNoDelay()
      return socket
    }
    throw lastError
  }

  /// The next client that waits; nil if there is none. The client's socket does not block.
  public func accept() throws(SystemError) -> AcceptedSocket? {
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let raw = withUnsafeMutablePointer(to: &storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        retrying { Glibc.accept(descriptor.raw, address, &size) }
      }
    }
    guard raw >= 0 else {
      if errno == EAGAIN || errno == EWOULDBLOCK || errno == ECONNABORTED { return nil }
      throw SystemError("accept")
    }
    _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
    let socket = Socket(owning: raw)
    socket.setBlocking(false)
    return AcceptedSocket(socket: socket, peer: SocketAddress(storage))
  }

  /// The address this end is bound to.
  public var localAddress: SocketAddress {
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    _ = withUnsafeMutablePointer(to: &storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        getsockname(descriptor.raw, $0, &size)
      }
    }
    return SocketAddress(storage)
  }

  public func setBlocking(_ isBlocking: Bool) {
    let flags = fcntl(descriptor.raw, F_GETFL)
    _ = fcntl(
      descriptor.raw, F_SETFL, isBlocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK)
  }

  /// Sends small writes at once.
  public func setNoDelay() {
    set(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
  }

  /// A fixed receive buffer: on the machines measured, autotuning costs half the throughput of many
  /// busy connections.
  public func setReceiveBuffer(bytes: Int32) {
    set(SOL_SOCKET, SO_RCVBUF, bytes)
  }

  /// Reads and writes that block fail with EAGAIN after so long; 0 waits for ever.
  public func setTimeout(milliseconds: Int) {
    var limit = timeval(
      tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
    let size = socklen_t(MemoryLayout<timeval>.size)
    _ = setsockopt(descriptor.raw, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
    _ = setsockopt(descriptor.raw, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
  }

  /// Ends the stream towards the peer, which can still send.
  public func shutdownWrite() {
    _ = Glibc.shutdown(descriptor.raw, Int32(SHUT_WR))
  }

  /// Ends both directions; whoever is blocked in a read or a write wakes up.
  public func shutdownBoth() {
    _ = Glibc.shutdown(descriptor.raw, Int32(SHUT_RDWR))
  }

  private func set(_ level: Int32, _ option: Int32, _ value: Int32) {
    var value = value
    _ = setsockopt(
      descriptor.raw, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
  }

  /// The errno of a connect that failed; nil when it succeeded.
  private func finishConnect(_ candidate: ResolvedAddress, _ timeout: Int32) -> Int32? {
    if candidate.withAddress({ Glibc.connect(descriptor.raw, $0, $1) }) == 0 { return nil }
    guard errno == EINPROGRESS else { return errno }
    var wait = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
    guard retrying({ poll(&wait, 1, timeout) }) > 0 else { return ETIMEDOUT }
    var error: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    _ = getsockopt(descriptor.raw, SOL_SOCKET, SO_ERROR, &error, &size)
    return error == 0 ? nil : error
  }

  private static let streamType = Int32(SOCK_STREAM.rawValue)
  private static let nonBlockingFlags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)

  private static func resolve(
    _ address: SocketAddress, isPassive: Bool
  ) throws(SystemError) -> [ResolvedAddress] {
    var hints = addrinfo()
    hints.ai_socktype = streamType
    hints.ai_flags = isPassive ? AI_PASSIVE | AI_NUMERICSERV : AI_NUMERICSERV
    var list: UnsafeMutablePointer<addrinfo>?
    let failed = getaddrinfo(address.host, String(address.port), &hints, &list)
    guard failed == 0 else {
      throw SystemError(
        "resolve \(address.host) (\(String(cString: gai_strerror(failed))))", code: EADDRNOTAVAIL)
    }
    defer { freeaddrinfo(list) }
    var found: [ResolvedAddress] = []
    var next = list
    while let info = next?.pointee {
      found.append(ResolvedAddress(info))
      next = info.ai_next
    }
    return found
  }
}

/// A client's socket and where it comes from.
public struct AcceptedSocket: ~Copyable {
  public let socket: Socket
  public let peer: SocketAddress

  /// Gives the socket away.
  public consuming func take() -> Socket { socket }
}

/// One answer of the resolver.
private struct ResolvedAddress {
  let family: Int32
  private var storage = sockaddr_storage()
  private let size: socklen_t

  init(_ info: addrinfo) {
    family = info.ai_family
    size = info.ai_addrlen
    withUnsafeMutableBytes(of: &storage) {
      $0.copyMemory(from: UnsafeRawBufferPointer(start: info.ai_addr, count: Int(info.ai_addrlen)))
    }
  }

  func withAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var copy = storage
    return withUnsafePointer(to: &copy) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, size) }
    }
  }
}
