import IO

extension CheckpointFile {
  package enum Reading {
    case whole(CheckpointFile)
    /// With as much of the payload as is there.
    case damaged(String, payload: [UInt8])
    /// Of another version.
    case stranger(JournalFormat.Stranger)
  }

  /// What nobody's catalog needs; a file may claim any size.
  private static let damagedBytesMax = 256 << 20

  package static func read(_ disk: any Disk, _ path: String) throws(JournalError) -> Reading {
    let file = try system { () throws(SystemError) in try disk.open(path, .read) }
    let size = try system { () throws(SystemError) in try file.size }
    do throws(SystemError) {
      let bytes = try read(file, min(size, damagedBytesMax))
      let claimed = bytes.withUnsafeBytes {
        $0.count < headerBytes ? nil : $0.loadUnaligned(fromByteOffset: 40, as: UInt64.self)
      }
      let isWhole = size == bytes.count || claimed != UInt64(size - headerBytes)
      return whole(isWhole ? bytes : try read(file, size))
    } catch {
      if case .damaged(_, _, _, let reason) = JournalError.reading(error, path) {
        return .damaged(reason, payload: [])
      }
      throw .system(error)
    }
  }

  private static func whole(_ bytes: [UInt8]) -> Reading {
    do throws(Problem) {
      return .whole(try CheckpointFile(bytes))
    } catch {
      switch error {
      case .stranger(let stranger): return .stranger(stranger)
      case .damaged:
        return .damaged(
          "its checksum is wrong", payload: Array(bytes.dropFirst(headerBytes)))
      }
    }
  }

  private static func read(_ file: any DiskFile, _ count: Int) throws(SystemError) -> [UInt8] {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
    defer { buffer.deallocate() }
    let got = try file.read(at: 0, into: buffer)
    return Array(buffer.prefix(got))
  }
}
