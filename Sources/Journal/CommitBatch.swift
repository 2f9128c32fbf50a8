/// What the commit thread writes at once: consecutive bytes of the log, in pieces of memory.
///
/// The pieces stay where they are until the batch is finished: the core keeps a block that is not
/// durable. The commit thread alone writes the records' checksums; the core writes only behind the
/// batch's end.
struct CommitBatch: @unchecked Sendable {
  struct Slice {
    /// Memory of the byte at `position`.
    let base: UnsafeMutableRawPointer
    let position: Int
    let count: Int
    /// Where the block that the slice is in begins; its memory begins there too.
    let blockStart: Int
  }

  /// The first new byte; everything before it is durable.
  let start: Int
  let end: Int
  let epoch: UInt64
  let slices: [Slice]
  /// It has the record that names a new epoch. It becomes durable whatever the settings say: a life
  /// whose epoch is lost while other records of it stay could not be told from the next.
  let beginsLife: Bool
}

/// How a batch ended.
enum CommitResult: Sendable {
  case durable(end: Int)
  /// No byte was written, because a segment could not be made or opened; it may be tried again.
  case postponed(String)
  /// What is on the disk is not known; nothing may be written over it.
  case failed(String)
}
