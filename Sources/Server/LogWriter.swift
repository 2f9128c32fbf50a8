import Base
import Glibc
import IO
import Synchronization

/// Writes the log's lines from a thread of its own, so that whoever reads them, and may not, holds up
/// nobody else. What waits to be written is bounded; what does not fit is dropped and counted, and the
/// count is told as soon as lines flow again.
final class LogWriter: Sendable {
  /// Most that waits to be written.
  static let bytesMax = 1 << 20
  static let linesMax = 10_000
  /// How long the end of the process waits for a reader.
  static let patienceMilliseconds: Int64 = 2000

  private struct State: ~Copyable {
    var buffer: [UInt8] = []
    var lines = 0
    /// Lines that found no room since the buffer was taken.
    var dropped = 0
    var repetition = LogRepetition()
    /// The thread is writing what it took.
    var isWriting = false
    var isStopping = false
  }

  private let descriptor: Int32
  private let state = Mutex(State())
  private let work: Wakeup
  private let idle: Wakeup

  /// Writes to `descriptor`, which stays the caller's.
  init(descriptor: Int32 = STDERR_FILENO) throws(SystemError) {
    self.descriptor = descriptor
    work = try Wakeup()
    idle = try Wakeup()
    _ = try Thread(name: "log") { [self] in run() }
  }

  // MARK: What is told

  /// A whole line.
  func append(_ line: String) {
    let isFirst = state.withLock { state in
      guard Self.put(line, in: &state) else { return false }
      return state.lines == 1
    }
    if isFirst { work.signal() }
  }

  /// As `LogRepetition.admits`.
  func admits(_ kind: LogKind, of name: String) -> Bool {
    let (isAdmitted, isDue) = state.withLock { state in
      let due = state.repetition.due
      let isAdmitted = state.repetition.admits(kind, of: name, now: Self.now)
      return (isAdmitted, state.repetition.due != due)
    }
    // The thread waits no longer than until the summary is due.
    if isDue { work.signal() }
    return isAdmitted
  }

  private static func put(_ line: String, in state: inout State) -> Bool {
    guard state.lines < linesMax, state.buffer.count + line.utf8.count <= bytesMax else {
      state.dropped += 1
      return false
    }
    state.buffer += line.utf8
    state.lines += 1
    LastWords.unwrittenBytes.add(line.utf8.count, ordering: .relaxed)
    return true
  }

  // MARK: The end

  /// Tells what was counted, and waits for all to be written, but not for ever. Ends the thread.
  func close() {
    state.withLock { state in
      Self.summarise(in: &state, now: .max)
      state.isStopping = true
    }
    work.signal()
    let deadline = Self.now + Self.patienceMilliseconds
    while !isEmpty {
      let left = deadline - Self.now
      guard left > 0 else { return }
      idle.wait(timeoutMilliseconds: Int32(clamping: left))
    }
  }

  private var isEmpty: Bool {
    state.withLock { $0.buffer.isEmpty && $0.dropped == 0 && !$0.isWriting }
  }

  // MARK: The thread

  private func run() {
    var bytes: [UInt8] = []
    while true {
      let (dropped, isStopping, wait) = state.withLock { state in
        Self.summarise(in: &state, now: Self.now)
        bytes.removeAll(keepingCapacity: bytes.capacity <= 64 << 10)
        swap(&bytes, &state.buffer)
        defer {
          state.lines = 0
          state.dropped = 0
        }
        state.isWriting = !bytes.isEmpty || state.dropped > 0
        return (state.dropped, state.isStopping, Self.wait(state.repetition.due))
      }
      write(bytes)
      LastWords.unwrittenBytes.subtract(bytes.count, ordering: .relaxed)
      if dropped > 0 {
        write(
          Array(
            Log.line(.warning, "… \(dropped) lines of this log were dropped: nobody read it")
              .utf8))
      }
      let hasMore = state.withLock { state in
        state.isWriting = false
        return !state.buffer.isEmpty || state.dropped > 0
      }
      if hasMore { continue }
      idle.signal()
      if isStopping { return }
      work.wait(timeoutMilliseconds: wait)
    }
  }

  private static func summarise(in state: inout State, now: Int64) {
    for summary in state.repetition.summaries(now: now) {
      _ = put(Log.line(summary.level, summary.text), in: &state)
    }
  }

  private static func wait(_ due: Int64?) -> Int32 {
    due.map { Int32(clamping: max(0, $0 - now)) } ?? -1
  }

  /// Nobody is left to be told if it fails.
  private func write(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { bytes in
      var rest = bytes
      while !rest.isEmpty {
        let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if count > 0 {
          rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        } else if errno == EAGAIN {
          // Whoever shares the terminal or the pipe has made it non-blocking.
          var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
          _ = poll(&wait, 1, -1)
        } else if errno != EINTR {
          return
        }
      }
    }
  }

  /// Monotonic milliseconds.
  private static var now: Int64 { Clock.monotonicNanoseconds() / 1_000_000 }
}
