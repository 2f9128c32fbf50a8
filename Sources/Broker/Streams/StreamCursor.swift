import Journal

/// Where a reader stands in one of a stream's partitions.
struct StreamCursor {
  /// Records that have moved out of the log, as they are read back.
  struct Page {
    let key: Partition.PageKey
    let segment: PartitionSegment
    let slot: UInt32
    /// The message of the page that comes next; nil until that was looked for.
    var index: Int?
  }

  let partition: Partition
  let lane: Lane
  /// The offset that comes next.
  var next: UInt64
  /// Where that is if it has moved out of the log.
  var page: Page?
  /// Offsets that were given back.
  let again = ReturnedOffsets()
  /// Where the first of those is.
  var againPage: Page?
  /// Records that were gone before they were read; the next delivery tells.
  var skipped: UInt64 = 0
  /// Its place among those that the partition tells when there is more.
  var waitingPlace: Int?
  /// Another member of the group is to read it.
  var isLeaving = false
  /// Records that were stored before this date are passed over at the beginning.
  var since: Int64?
}

extension Journal {
  /// The first message, from an offset on, of a page with so many.
  func place(of offset: UInt64, inPage slot: UInt32, _ count: Int) -> Int {
    (0..<count).partition { entry(ofPage: slot, $0).sequence <= offset }
  }
}
