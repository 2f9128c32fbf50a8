import Client
import Glibc
import IO
import Synchronization

/// Standard input, read by a thread of its own, so that no task's thread is blocked while nobody
/// types. One chunk is read each time one is asked for.
final class StandardInput: Sendable {
  typealias Chunk = Result<[UInt8], Failure>

  private struct State {
    /// Who waits for a chunk.
    var continuation: CheckedContinuation<Chunk, Never>?
    /// A chunk that nobody waited for any more.
    var unclaimed: Chunk?
    var isReading = false
  }

  private let state = Mutex(State())
  private let wakeup: Wakeup

  static let chunkSize = 65_536

  init() throws(Failure) {
    do throws(SystemError) {
      wakeup = try Wakeup()
      _ = try Thread(name: "stdin") { [self] in
        while true {
          wakeup.wait()
          bring(Self.read())
        }
      }
    } catch {
      throw Failure("\(error)")
    }
  }

  /// The next bytes; none at the end. Only one task may ask.
  func chunk() async throws(Failure) -> [UInt8] {
    let chunk = await withTaskCancellationHandler {
      await withCheckedContinuation { ask($0) }
    } onCancel: {
      abandon()
    }
    return try chunk.get()
  }

  private func ask(_ continuation: CheckedContinuation<Chunk, Never>) {
    let ready: Chunk? = state.withLock { state in
      if let unclaimed = state.unclaimed.take() { return unclaimed }
      if Task.isCancelled { return .failure(Failure(.cancelled)) }
      state.continuation = continuation
      if !state.isReading {
        state.isReading = true
        wakeup.signal()
      }
      return nil
    }
    if let ready { continuation.resume(returning: ready) }
  }

  private func abandon() {
    let continuation = state.withLock { $0.continuation.take() }
    continuation?.resume(returning: .failure(Failure(.cancelled)))
  }

  private func bring(_ chunk: Chunk) {
    let continuation = state.withLock { state in
      state.isReading = false
      let continuation = state.continuation.take()
      if continuation == nil { state.unclaimed = chunk }
      return continuation
    }
    continuation?.resume(returning: chunk)
  }

  private static func read() -> Chunk {
    var bytes = [UInt8](repeating: 0, count: chunkSize)
    while true {
      let count = Glibc.read(STDIN_FILENO, &bytes, bytes.count)
      if count >= 0 {
        bytes.removeLast(bytes.count - count)
        return .success(bytes)
      }
      if errno == EAGAIN {
        var wait = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        _ = poll(&wait, 1, -1)
      } else if errno != EINTR {
        return .failure(
          Failure("standard input cannot be read: \(String(cString: strerror(errno)))"))
      }
    }
  }
}

/// Lines of standard input, or of bytes that are there already, without their ends. What stands behind the last line end is a line too,
/// unless it is empty.
struct LineReader {
  private let input: StandardInput?
  private var buffer: [UInt8] = []
  private var offset = 0
  /// No line end is before this.
  private var searched = 0
  private var hasEnded = false

  init(_ input: StandardInput) {
    self.input = input
  }

  init(_ bytes: [UInt8]) {
    input = nil
    buffer = bytes
    hasEnded = true
  }

  /// The next line; nil at the end.
  mutating func next() async throws(Failure) -> [UInt8]? {
    while true {
      if let end = buffer[searched...].firstIndex(of: UInt8(ascii: "\n")) {
        defer {
          offset = end + 1
          searched = offset
        }
        return Array(buffer[offset..<end])
      }
      if hasEnded {
        defer { offset = buffer.count }
        searched = buffer.count
        return offset < buffer.count ? Array(buffer[offset...]) : nil
      }
      buffer.removeFirst(offset)
      offset = 0
      searched = buffer.count
      let chunk = try await input?.chunk() ?? []
      hasEnded = chunk.isEmpty
      buffer += chunk
      guard buffer.count <= MessageSource.bodySizeMax else {
        throw Failure("a line is longer than \(MessageSource.bodySizeMaxWords)")
      }
    }
  }
}
