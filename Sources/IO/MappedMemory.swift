import CSystem
import Glibc

/// Memory straight from the kernel.
public enum MappedMemory {
  /// Makes a private mapping larger or smaller, to a multiple of the page size. It may move: then its pages
  /// do, and no byte is copied. nil if the system has no room for it; then it is as it was.
  public static func resize(
    _ memory: UnsafeMutableRawPointer, from old: Int, to new: Int
  ) -> UnsafeMutableRawPointer? {
    let moved = system_resize_mapping(memory, old, new)
    return moved == MAP_FAILED ? nil : moved
  }
}
