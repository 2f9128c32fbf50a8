import Glibc

/// Files that are read in one piece: configuration, message bodies. Not for the journal.
public enum WholeFile {
  /// All bytes of the file at `path`; EFBIG when there are more than `bytesMax`.
  public static func read(_ path: String, bytesMax: Int) throws(SystemError) -> [UInt8] {
    let raw = open(path, O_RDONLY | O_CLOEXEC)
    guard raw >= 0 else { throw SystemError("open \(path)") }
    let file = FileDescriptor(owning: raw)
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
      switch chunk.withUnsafeMutableBytes({ file.read(into: $0) }) {
      case .count(let count): bytes += chunk[..<count]
      case .ended: return bytes
      case .wouldBlock: throw SystemError("read \(path)", code: EAGAIN)
      case .failed(let error): throw SystemError("read \(path)", code: error.code)
      }
      guard bytes.count <= bytesMax else { throw SystemError("read \(path)", code: EFBIG) }
    }
  }
}
