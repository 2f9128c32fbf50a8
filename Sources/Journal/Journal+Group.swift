import Base

extension Journal {
  /// Makes the records that `body` appends one: a start finds all of them or none, wherever a crash comes.
  /// What waits for one of them has to wait for `endPosition` as it is afterwards, behind the group's end.
  /// A group is written at once: no batch is taken in it, and no group begins in it. It costs 40 bytes, no
  /// allocation and no commit of its own.
  public func group(_ body: () -> Void) {
    invariant(!isInGroup, "a group begins in a group")
    if Sabotage.is(.forgetsGroup) { return body() }
    isInGroup = true
    let (location, _) = append(kind: OwnRecord.Kind.groupBegin.rawValue, payloadSize: 0)
    let begin = blocks[Int(location.block)].start + Int(location.offset)
    if Sabotage.is(.endsGroupEarly) { GroupEndRecord.append(to: self, begin: UInt64(begin)) }
    body()
    if !Sabotage.is(.endsGroupEarly) { GroupEndRecord.append(to: self, begin: UInt64(begin)) }
    isInGroup = false
  }
}

extension Journal {
  /// As `group`, or as a part of the group that is being written.
  public func together(_ body: () -> Void) {
    if isInGroup { body() } else { group(body) }
  }
}
