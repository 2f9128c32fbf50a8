import CSystem

/// Memory of this process as the kernel sees it.
public enum ProcessMemory {
  /// From now on each freed piece is joined with its neighbours at once. The allocator would otherwise
  /// gather small ones, and join all of them when something large is freed: milliseconds, for whoever
  /// frees it, after very many small ones went.
  public static func joinAtOnce() {
    mallopt(M_MXFAST, 0)
  }

  /// Gives what the allocator keeps for later back to the kernel. Takes milliseconds when that is
  /// much, in which others that allocate may wait: not for a thread that has clients.
  public static func releaseUnused() {
    malloc_trim(0)
  }
}
