/// Bits of the journal that flip. The broker refuses to start, or does without what it cannot read,
/// and says so; it never delivers something else, and when the medium is restored nothing is missing.
extension Run {
  /// Where writes are not synced damage cannot be told from what a crash left.
  func rot() {
    guard world.may(.bitRot), !isFinishing, world.disk.rot == nil,
      world.scenario.settings.isSynced
    else { return }
    world.disk.rot(
      before: world.oracle.provenPosition, segmentBytes: world.scenario.settings.segmentBytes)
    guard world.disk.rot != nil else { return }
    world.coverage.note(.rots)
    world.oracle.isRotten = true
    world.told.count = 0
  }

  /// Before a start.
  func rotAtRest() {
    if world.random.oneIn(5) { rot() }
    world.disk.rot?.startCount += 1
  }

  /// Behind a life: the medium is restored once a start has seen the damage.
  func healAtEnd() {
    guard let rot = world.disk.rot else { return }
    if rot.isMet { world.coverage.note(.rottenReads) }
    if world.told.count > 0 { world.coverage.note(.damageTold) }
    if rot.startCount > 0 { heal() }
  }

  func heal() {
    world.disk.heal()
    world.oracle.isRotten = false
  }
}
