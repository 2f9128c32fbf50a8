import Base
import Glibc
import IO
import Synchronization

/// The core's end of the reader thread, which reads blocks back from segments and lane files and
/// checks them.
final class BlockReader: Sendable {
  /// Sendable, unchecked: `memory` is the reader's alone from `submit` until the request has ended.
  struct Request: @unchecked Sendable {
    let slot: UInt32
    let source: Source
    /// Room for the block; nobody else touches it until the request has ended.
    let memory: UnsafeMutableRawBufferPointer
  }

  enum Source: Equatable, Sendable {
    /// Records of one epoch from the offset `checkedFrom` on.
    case log(position: Int, epoch: UInt32, checkedFrom: Int)
    case lane(path: String, file: UInt32, offset: Int)
    case page(PageSource)
  }

  struct Problem: Sendable {
    let text: String
    /// The bytes are there, and not what was written: reading them again gives no others.
    let isDamage: Bool
    /// It says nothing of the file, such as that too many are open.
    var isPassing = false
  }

  /// Sendable, unchecked: the reader is done with the memory of the request, the core has it back.
  struct Finished: @unchecked Sendable {
    let request: Request
    let problem: Problem?
    /// The memory is too small: a page needs so much.
    var neededBytes: Int?
  }

  private let worker: any Worker
  private let files: SegmentFiles
  private let wake: @Sendable () -> Void
  private let finished = Mutex<[Finished]>([])

  /// `wake` is called on the reader thread when something has ended.
  init(worker: any Worker, files: SegmentFiles, wake: @escaping @Sendable () -> Void) {
    self.worker = worker
    self.files = files
    self.wake = wake
  }

  func submit(_ request: Request) {
    worker.submit { [self] in
      let (problem, needed) = read(request)
      finished.withLock {
        $0.append(Finished(request: request, problem: problem, neededBytes: needed))
      }
      wake()
    }
  }

  func takeFinished() -> [Finished] {
    finished.withLock { finished in
      guard !finished.isEmpty else { return [] }
      defer { finished = [] }
      return finished
    }
  }

  func stop() {
    worker.stop()
  }

  /// Reads and checks; returns what went wrong, or how much memory a page needs that has too little.
  func read(_ request: Request) -> (problem: Problem?, neededBytes: Int?) {
    do throws(SystemError) {
      if case .page(let source) = request.source {
        switch try PageReader(files: files, source: source).read(into: request.memory) {
        case .needsRoom(let bytes): return (nil, bytes)
        case .damaged(let text): return (Problem(text: text, isDamage: true), nil)
        case .filled, .needsInput: return (nil, nil)
        }
      }
      return (try readWhole(request), nil)
    } catch {
      // The last is said of a directory that was moved away, and may come back.
      let isPassing = [EMFILE, ENFILE, ENOMEM, ESTALE].contains(error.code)
      return (Problem(text: "\(error)", isDamage: false, isPassing: isPassing), nil)
    }
  }

  private func readWhole(_ request: Request) throws(SystemError) -> Problem? {
    switch request.source {
    case .log(let position, let epoch, let checkedFrom):
      try files.read(position: position, into: request.memory)
      return Self.isSound(request.memory, position, epoch, from: checkedFrom)
        ? nil
        : Problem(text: "the log is damaged near position \(position)", isDamage: true)
    case .lane(let path, let number, let offset):
      let file = try files.disk.open(path, .read)
      let count = try file.read(at: offset, into: request.memory)
      let block = UnsafeRawBufferPointer(rebasing: request.memory[..<count])
      return count == request.memory.count && LaneBlockFormat.isValid(block, file: number)
        ? nil
        : Problem(text: "the block at offset \(offset) of \(path) is damaged", isDamage: true)
    case .page: invariantFailed("a page is no whole block")
    }
  }

  private static func isSound(
    _ block: UnsafeMutableRawBufferPointer, _ position: Int, _ epoch: UInt32, from start: Int
  ) -> Bool {
    var offset = start
    while offset < block.count {
      let base = UnsafeRawPointer(block.baseAddress! + offset)
      let size = Int(base.load(as: UInt32.self))
      guard size >= 8, size == 8 || size >= Record.headerSize, size <= block.count - offset,
        Record.isValid(base, size, position: position + offset, epoch: epoch)
      else { return false }
      offset += Record.padded(size)
    }
    return true
  }
}
