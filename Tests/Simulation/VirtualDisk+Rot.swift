import Arbitrary

/// A bit of a file that has flipped by itself, and flips back when somebody restores the medium.
final class Rot {
  let path: String
  fileprivate let inode: Inode
  /// Starts of the broker that it was there for.
  var startCount = 0
  /// The running broker has read it.
  var isMet = false

  fileprivate init(path: String, inode: Inode) {
    self.path = path
    self.inode = inode
  }
}

extension VirtualDisk {
  /// A bit flips somewhere in a file, if there is one to choose. Damage of the log is chosen before
  /// `provenPosition` only: behind that nobody can tell it from a write that was not finished.
  func rot(before provenPosition: Int, segmentBytes: Int) {
    guard rot == nil else { return }
    for _ in 0..<Self.rotTriesMax {
      guard let path = choosePath() else { return }
      guard let range = names[path].map({ range(path, $0, provenPosition, segmentBytes) }),
        let inode = names[path], range.count > 0
      else { continue }
      let offset = range.lowerBound + number(0...range.count - 1)
      guard inode.rot(at: offset, bit: number(0...7)) else { continue }
      rot = Rot(path: path, inode: inode)
      note("a bit flips at \(offset) of \(path)")
      return
    }
  }

  private static let rotTriesMax = 20

  /// Mostly a file that is read while the broker runs, if there is one.
  private func choosePath() -> String? {
    let paths = names.keys.filter { !$0.hasSuffix(".new") }.sorted()
    let lanes = paths.filter { $0.hasSuffix(".lanes") || $0.hasSuffix(".scratch") }
    let chosen = lanes.isEmpty || coin() ? paths : lanes
    return chosen.isEmpty ? nil : chosen[number(0...chosen.count - 1)]
  }

  private func range(
    _ path: String, _ inode: Inode, _ provenPosition: Int, _ segmentBytes: Int
  ) -> Range<Int> {
    let name = path.split(separator: "/").last ?? ""
    guard name.hasSuffix(".segment"), let first = Int(name.dropLast(8), radix: 16) else {
      return 0..<inode.current.count
    }
    let count = min(provenPosition - first, segmentBytes)
    guard count > 0 else { return 0..<0 }
    // Behind the 64 bytes of its header the first page says nothing.
    return number(0...9) == 0 ? 0..<64 : 4096..<4096 + count
  }

  /// The medium is as it was, unless something was written there meanwhile.
  func heal() {
    guard let rot else { return }
    rot.inode.heal()
    note("\(rot.path) is healed")
    self.rot = nil
  }
}
