import CSystem
import Glibc

/// Signals that arrive as bytes on a descriptor instead of interrupting a thread.
public struct SignalSource: ~Copyable, Sendable {
  public let descriptor: FileDescriptor

  /// Takes SIGINT and SIGTERM. To be called before any thread is started, since threads inherit
  /// which signals are held back.
  public static func stopRequests() throws(SystemError) -> SignalSource {
    try SignalSource([SIGINT, SIGTERM])
  }

  init(_ signals: [Int32]) throws(SystemError) {
    var set = sigset_t()
    sigemptyset(&set)
    for signal in signals { sigaddset(&set, signal) }
    pthread_sigmask(SIG_BLOCK, &set, nil)
    let raw = signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    guard raw >= 0 else { throw SystemError("signalfd") }
    descriptor = FileDescriptor(owning: raw)
  }

  /// The number of the signal that came; nil if none did.
  public func next() -> Int32? {
    var info = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    let count = retrying { read(descriptor.raw, &info, size) }
    return count == size ? Int32(info.ssi_signo) : nil
  }
}
