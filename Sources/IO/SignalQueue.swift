import CSystem
import Glibc

/// Signals that are read from a descriptor instead of interrupting a thread. Made before other
/// threads start, since these inherit which signals are held back.
public struct SignalQueue: ~Copyable, Sendable {
  public let descriptor: FileDescriptor

  /// Holds `signals` back from this thread and from those it starts.
  public init(_ signals: [Int32]) throws(SystemError) {
    var set = sigset_t()
    sigemptyset(&set)
    for signal in signals { sigaddset(&set, signal) }
    let failed = pthread_sigmask(SIG_BLOCK, &set, nil)
    guard failed == 0 else { throw SystemError("pthread_sigmask", code: failed) }
    let raw = signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    guard raw >= 0 else { throw SystemError("signalfd") }
    descriptor = FileDescriptor(owning: raw)
  }

  /// The signal that came next; nil if none waits.
  public func next() -> Int32? {
    var info = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    guard retrying({ read(descriptor.raw, &info, size) }) == size else { return nil }
    return Int32(info.ssi_signo)
  }
}
