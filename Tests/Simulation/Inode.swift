import Glibc

/// The content of a file: what a reader sees, what would survive the loss of power, and between the
/// two the sectors that were written and not made durable.
final class Inode {
  /// What is read.
  private(set) var current: [UInt8] = []
  /// What certainly survives; where the disk dropped a write, it differs from `current` for good.
  private var durable: [UInt8] = []
  /// What a sector may also hold after a power loss: its content after each write since it was last
  /// made durable, oldest first.
  private var pending: [Int: [[UInt8]]] = [:]
  private let sectorBytes: Int
  /// A bit that has flipped by itself: where, and whether it still is what is read, and what survives.
  private var rot: (offset: Int, mask: UInt8, isCurrent: Bool, isDurable: Bool)?
  /// Blocks of 4096 bytes that were given back to the file system.
  private var holes: Set<Int> = []

  /// Older versions of a sector are forgotten: so many are enough to choose from.
  private static let versionsMax = 4
  private static let blockBytes = 4096

  init(sectorBytes: Int) {
    self.sectorBytes = sectorBytes
  }

  /// Bytes of the disk that it takes.
  var allocatedBytes: Int {
    let blocks = (current.count + Self.blockBytes - 1) / Self.blockBytes
    return (blocks - holes.count) * Self.blockBytes
  }

  /// Bytes that the disk must still have for a write there.
  func growth(offset: Int, count: Int) -> Int {
    guard count > 0 else { return 0 }
    let grown = max(0, offset + count - current.count)
    let filled = (offset / Self.blockBytes...(offset + count - 1) / Self.blockBytes)
      .count { holes.contains($0) }
    return grown + filled * Self.blockBytes
  }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) -> Int {
    let count = min(buffer.count, max(0, current.count - offset))
    guard count > 0 else { return 0 }
    current.withUnsafeBytes { bytes in
      buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count]))
    }
    return count
  }

  // MARK: Rot

  /// Flips a bit of the medium where something was written and is durable. Returns whether it did.
  func rot(at offset: Int, bit: Int) -> Bool {
    guard offset < durable.count, current[offset] == durable[offset], current[offset] != 0,
      pending[offset / sectorBytes] == nil, !holes.contains(offset / Self.blockBytes)
    else { return false }
    rot = (offset, 1 << UInt8(bit), true, true)
    current[offset] ^= 1 << UInt8(bit)
    durable[offset] = current[offset]
    return true
  }

  func isRotten(at offset: Int, count: Int) -> Bool {
    guard let rot, rot.isCurrent else { return false }
    return (offset..<offset + count).contains(rot.offset)
  }

  func heal() {
    guard let rot else { return }
    if rot.isCurrent {
      current[rot.offset] ^= rot.mask
      // What was written beside it was written with it.
      let sector = rot.offset / sectorBytes
      for index in (pending[sector] ?? []).indices {
        pending[sector]![index][rot.offset - sector * sectorBytes] ^= rot.mask
      }
    }
    if rot.isDurable { durable[rot.offset] ^= rot.mask }
    self.rot = nil
  }

  // MARK: Changing

  /// Reserves blocks that read as zero.
  func extend(to size: Int) {
    guard size > current.count else { return }
    current.append(contentsOf: repeatElement(0, count: size - current.count))
  }

  /// Writes into the page cache: durable only after `sync`.
  func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) {
    forEachSector(offset, bytes) { sector, place, piece in
      if replace(at: place, piece) || isForgotten(sector) { remember(sector) }
    }
  }

  /// Writes past the page cache, sector by sector: of each sector `survives` says whether it reached
  /// the disk.
  func writeThrough(
    at offset: Int, _ bytes: UnsafeRawBufferPointer, survives: () -> Bool = { true }
  ) {
    forEachSector(offset, bytes) { sector, place, piece in
      guard survives() else { return }
      _ = replace(at: place, piece)
      makeDurable(sector)
    }
  }

  func punch(at offset: Int, count: Int) {
    let first = (offset + Self.blockBytes - 1) / Self.blockBytes
    let end = min(offset + count, current.count) / Self.blockBytes
    guard first < end else { return }
    let zeros = [UInt8](repeating: 0, count: Self.blockBytes)
    for block in first..<end {
      zeros.withUnsafeBytes { write(at: block * Self.blockBytes, $0) }
      holes.insert(block)
    }
  }

  func sync() {
    extendDurable()
    for sector in pending.keys { copyToDurable(sector) }
    pending.removeAll(keepingCapacity: true)
  }

  /// A sync that failed: the kernel forgets that some pages are dirty; readers still see them, the
  /// disk never will.
  func syncFailed(forgets: () -> Bool) {
    for sector in pending.keys.sorted() where forgets() { pending[sector] = nil }
  }

  // MARK: Power loss

  /// Chooses what of the unsynced survives. Returns the number of sectors that lost something.
  func losePower(survives: () -> Bool) -> Int {
    var lost = 0
    if durable.count != current.count, survives() { extendDurable() }
    for sector in pending.keys.sorted() {
      let versions = pending[sector] ?? []
      // The newest version that survives; each may have reached the disk or not.
      guard let version = versions.reversed().first(where: { _ in survives() }) else {
        lost += 1
        continue
      }
      let place = sector * sectorBytes
      let count = min(version.count, durable.count - place)
      if count > 0 { durable.replaceSubrange(place..<place + count, with: version[..<count]) }
      if let rot, rot.offset / sectorBytes == sector { self.rot?.isDurable = rot.isCurrent }
    }
    pending = [:]
    current = durable
    if let rot { self.rot?.isCurrent = rot.isDurable }
    holes = holes.filter { ($0 + 1) * Self.blockBytes <= current.count }
    return lost
  }

  // MARK: Sectors

  private func forEachSector(
    _ offset: Int, _ bytes: UnsafeRawBufferPointer,
    _ body: (Int, Int, UnsafeRawBufferPointer) -> Void
  ) {
    extend(to: offset + bytes.count)
    var done = 0
    while done < bytes.count {
      let place = offset + done
      let sector = place / sectorBytes
      let count = min(bytes.count - done, (sector + 1) * sectorBytes - place)
      body(sector, place, UnsafeRawBufferPointer(rebasing: bytes[done..<done + count]))
      done += count
    }
  }

  /// Returns whether anything changed.
  private func replace(at place: Int, _ piece: UnsafeRawBufferPointer) -> Bool {
    holes.remove(place / Self.blockBytes)
    if let rot, (place..<place + piece.count).contains(rot.offset) { self.rot?.isCurrent = false }
    return current.withUnsafeMutableBytes { bytes in
      let target = UnsafeMutableRawBufferPointer(rebasing: bytes[place..<place + piece.count])
      guard memcmp(target.baseAddress!, piece.baseAddress!, piece.count) != 0 else { return false }
      target.copyMemory(from: piece)
      return true
    }
  }

  private func range(_ sector: Int) -> Range<Int> {
    sector * sectorBytes..<min((sector + 1) * sectorBytes, current.count)
  }

  /// A failed sync dropped it; writing the same bytes once more makes the page dirty again.
  private func isForgotten(_ sector: Int) -> Bool {
    let range = range(sector)
    guard pending[sector] == nil else { return false }
    return range.upperBound > durable.count || current[range] != durable[range]
  }

  private func remember(_ sector: Int) {
    pending[sector, default: []].append(Array(current[range(sector)]))
    if pending[sector]!.count > Self.versionsMax { pending[sector]!.removeFirst() }
  }

  private func makeDurable(_ sector: Int) {
    extendDurable()
    copyToDurable(sector)
    pending[sector] = nil
  }

  private func extendDurable() {
    guard durable.count < current.count else { return }
    durable.append(contentsOf: repeatElement(0, count: current.count - durable.count))
  }

  private func copyToDurable(_ sector: Int) {
    let range = range(sector)
    if let rot, range.contains(rot.offset) { self.rot?.isDurable = rot.isCurrent }
    current.withUnsafeBytes { source in
      durable.withUnsafeMutableBytes { target in
        UnsafeMutableRawBufferPointer(rebasing: target[range]).copyMemory(
          from: UnsafeRawBufferPointer(rebasing: source[range]))
      }
    }
  }
}
