import Base
import Journal

/// Reading on behind damage. `isPlausible` says of a record, whose checksum was not looked at, whether
/// its size goes with its header; it keeps the search from hashing what is no record.
extension LogReader {
  typealias Plausible = (RecordView) -> Bool

  /// Goes on behind a record that is not valid; false if nothing proves that there was one.
  func skipDamage(_ isPlausible: Plausible) throws(JournalError) -> Bool {
    guard let proof = try firstProof() else { return false }
    let start = position
    let own = epoch
    isClean = false
    for candidate in own == proof.epoch ? [own] : [own, proof.epoch] {
      epoch = candidate
      if let found = try firstValid(in: start + 8..<proof.place + 8, isPlausible) {
        position = found
        return true
      }
    }
    (position, epoch) = (proof.place, proof.epoch)
    return true
  }

  /// Behind damage: goes behind the group of which this is the rest, if its end is the next mark.
  func skipRestOfGroup() throws(JournalError) {
    let (start, own) = (position, epoch)
    search: while let view = try step() {
      switch OwnRecord.Kind(rawValue: view.kind) {
      case .groupEnd:
        if view.endedGroup.map({ $0 < start }) ?? false { return }
        break search
      case .groupBegin, .epoch: break search
      case .pad, .batch, .stop, .laneFile, .laneFileRemoved, nil: continue
      }
    }
    (position, epoch, isClean) = (start, own, false)
  }

  /// Goes to the first record that is valid in the present epoch or begins a later one.
  func seekFirst(_ isPlausible: Plausible) throws(JournalError) -> Bool {
    guard let found = try firstValid(in: position..<end, isPlausible) else { return false }
    position = found
    return true
  }

  private func firstValid(
    in range: Range<Int>, _ isPlausible: Plausible
  ) throws(JournalError) -> Int? {
    var place = range.lowerBound
    while place < range.upperBound, place + 16 <= end {
      let base = try bytes(at: place, 16)
      if base.load(as: UInt32.self) >= 16, try isRecord(base, place, isPlausible) { return place }
      place = self.place(behind: place)
    }
    return nil
  }

  private func isRecord(
    _ base: UnsafeRawPointer, _ place: Int, _ isPlausible: Plausible
  ) throws(JournalError) -> Bool {
    let size = Int(base.load(as: UInt32.self))
    guard size <= end - place else { return false }
    let head = RecordView(position: place, base: try bytes(at: place, min(size, 32)), size: size)
    if let own = OwnRecord.Kind(rawValue: head.kind) {
      guard own.isInLog, own.isPlausible(head) else { return false }
    } else {
      guard head.kind >= Record.brokerKinds, isPlausible(head) else { return false }
    }
    return try valid(at: place) != nil
  }

  /// The first record behind `position` that proves that the one there had been durable.
  private func firstProof() throws(JournalError) -> (place: Int, epoch: UInt64)? {
    var place = position + 8
    while place + 32 <= end {
      let base = try bytes(at: place, 32)
      if base.load(as: UInt32.self) == 32, let found = proofEpoch(base, at: place) {
        return (place, found)
      }
      place = self.place(behind: place)
    }
    return nil
  }

  /// More lives than anybody tries for.
  private static let epochGuessMax: UInt64 = 1 << 16

  /// Finds the epoch of the records from `position` on where no header says it: of the first batch
  /// record, or that before the first record of an epoch. False if there is none.
  func findEpoch(upTo limit: UInt64) throws(JournalError) -> Bool {
    var place = position
    while place + 32 <= end {
      let base = try bytes(at: place, 32)
      let here = place
      place = self.place(behind: place)
      guard base.load(as: UInt32.self) == 32,
        base.load(fromByteOffset: Record.kindOffset, as: UInt64.self)
          == UInt64(OwnRecord.Kind.batch.rawValue),
        let found = batchEpoch(in: 0...min(limit, Self.epochGuessMax), base, at: here)
      else { continue }
      epoch = found
      return true
    }
    return false
  }
}
