import Glibc
import Synchronization

/// Lets lines that were logged before a crash be written before the process is gone.
public enum LastWords {
  /// Bytes that another thread is about to write.
  public static let unwrittenBytes = Atomic(0)

  private static let signals = [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV]
  private static let stepsMax = 500
  private static let stepMicroseconds: UInt32 = 1000
  /// What was done before on each signal. Written by `waitForOnCrash` alone, before any crash that it
  /// is read by.
  nonisolated(unsafe) private static let former = UnsafeMutablePointer<sigaction>.allocate(
    capacity: 65)

  /// From now on a crash waits a moment for `unwrittenBytes` to become 0, and then goes on as it
  /// would have. Called once, at the start.
  public static func waitForOnCrash() {
    for signal in signals {
      var action = sigaction()
      action.__sigaction_handler.sa_sigaction = { signal, info, _ in
        LastWords.wait(
          signal, isOfKernel: info.map { $0.pointee.si_code > 0 } ?? false,
          isFromOutside: info.map { $0.pointee._sifields._kill.si_pid != getpid() } ?? false)
      }
      action.sa_flags = SA_SIGINFO
      sigaction(signal, &action, former + Int(signal))
    }
  }

  /// Runs in the handler: nothing here allocates or locks. Back from it the instruction that crashed
  /// does so again, with what was done before in place. Where another process sent the signal there is no
  /// such instruction, and whoever was there before might count on one: the process just ends.
  private static func wait(_ signal: Int32, isOfKernel: Bool, isFromOutside: Bool) {
    var steps = 0
    while unwrittenBytes.load(ordering: .relaxed) > 0, steps < stepsMax {
      usleep(stepMicroseconds)
      steps += 1
    }
    if isOfKernel || !isFromOutside {
      sigaction(signal, former + Int(signal), nil)
    } else {
      var ending = sigaction()
      ending.__sigaction_handler.sa_handler = SIG_DFL
      sigaction(signal, &ending, nil)
    }
    if !isOfKernel { raise(signal) }
  }
}
