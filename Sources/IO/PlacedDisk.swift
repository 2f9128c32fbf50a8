import Glibc

/// A disk that is used only while some directories are where they were found. Files are opened by their
/// names; without this, who works in a directory that was moved away would go on in what was put in its
/// place, which may be another's.
public struct PlacedDisk: Disk {
  private let disk: any Disk
  private let places: [PlaceOnDisk]

  public init(_ disk: any Disk, places: [PlaceOnDisk]) {
    self.disk = disk
    self.places = places
  }

  /// A replacement at the very moment between this and what follows is not noticed.
  private func check() throws(SystemError) {
    for place in places where !place.isThere {
      throw SystemError("\(place.path) was moved, removed or replaced", code: ESTALE)
    }
  }

  public func open(
    _ path: String, _ access: File.Access, creates: Bool
  ) throws(SystemError) -> any DiskFile {
    try check()
    return try disk.open(path, access, creates: creates)
  }

  public func makeDirectories(_ path: String) throws(SystemError) {
    try check()
    try disk.makeDirectories(path)
  }

  public func list(_ path: String) throws(SystemError) -> [String] {
    try check()
    return try disk.list(path)
  }

  public func exists(_ path: String) -> Bool { disk.exists(path) }
  public func kind(_ path: String) -> FileKind { disk.kind(path) }

  public func rename(_ from: String, _ to: String) throws(SystemError) {
    try check()
    try disk.rename(from, to)
  }

  public func remove(_ path: String) throws(SystemError) {
    try check()
    try disk.remove(path)
  }

  public func syncDirectory(_ path: String) throws(SystemError) {
    try check()
    try disk.syncDirectory(path)
  }

  public func freeBytes(_ path: String) throws(SystemError) -> Int {
    try check()
    return try disk.freeBytes(path)
  }
}
