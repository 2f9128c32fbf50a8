import Arbitrary
import Glibc

/// What a disk is asked to do.
enum DiskOperation: CaseIterable {
  case open, read, write, sync, allocate, punch, list, rename, remove, syncDirectory
}

/// Which operations fail, for a while.
struct FaultEpisode {
  let operations: Set<DiskOperation>
  /// One in so many fails.
  let oneIn: Int

  /// The usual ways in which disks go wrong.
  static func some(_ random: inout SeededGenerator) -> FaultEpisode {
    let kinds: [Set<DiskOperation>] = [
      [.read], [.write], [.sync], [.sync, .syncDirectory], [.syncDirectory],
      [.open, .rename, .remove, .list], [.allocate, .open], [.rename], Set(DiskOperation.allCases),
    ]
    return FaultEpisode(
      operations: random.choose(kinds), oneIn: random.choose([1, 2, 3, 5, 10, 20]))
  }
}

/// How the power or the process goes away.
package enum CrashKind: Sendable {
  /// What was not made durable may be lost, each piece for itself.
  case powerLoss
  /// The kernel goes on: all that was written stays.
  case kill
}
