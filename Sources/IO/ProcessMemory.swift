import CSystem

/// Memory of this process as the kernel sees it.
public enum ProcessMemory {
  /// Gives what the allocator keeps for later back to the kernel. Takes milliseconds when that is
  /// much: for a process that has nothing to do.
  public static func releaseUnused() {
    malloc_trim(0)
  }
}
