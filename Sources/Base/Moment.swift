/// Now, on both clocks. What lasts or waits goes by the one that never goes back; the other is for
/// what is written down.
public struct Moment: Equatable, Sendable {
  /// Milliseconds since some moment before the start of the process.
  public var monotonic: Int64
  /// Milliseconds since 1970. Somebody may set this clock, in either direction.
  public var wall: Int64

  @inlinable
  public init(monotonic: Int64, wall: Int64) {
    self.monotonic = monotonic
    self.wall = wall
  }
}
