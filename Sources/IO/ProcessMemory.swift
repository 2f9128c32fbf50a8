import CSystem

/// Memory of this process as the kernel sees it.
public enum ProcessMemory {
  /// Gives what the allocator keeps for later back to the kernel. Takes milliseconds when that is
  /// much, in which others that allocate may wait: not for a thread that has clients.
  public static func releaseUnused() {
    malloc_trim(0)
  }
}
