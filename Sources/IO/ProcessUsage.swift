import Glibc

/// How much processor time something has used.
public struct ProcessorTime: Equatable, Sendable {
  public var userSeconds: Double
  public var systemSeconds: Double

  public init(userSeconds: Double = 0, systemSeconds: Double = 0) {
    self.userSeconds = userSeconds
    self.systemSeconds = systemSeconds
  }

  public var seconds: Double { userSeconds + systemSeconds }

  /// This process with all its threads.
  public static var ofThisProcess: ProcessorTime { usage(of: RUSAGE_SELF.rawValue) }

  /// The calling thread.
  public static var ofThisThread: ProcessorTime { usage(of: threadOnly) }

  /// Linux' RUSAGE_THREAD, which the C library's headers hide.
  private static let threadOnly: Int32 = 1

  private static func usage(of who: Int32) -> ProcessorTime {
    var usage = rusage()
    getrusage(who, &usage)
    return ProcessorTime(
      userSeconds: seconds(usage.ru_utime), systemSeconds: seconds(usage.ru_stime))
  }

  private static func seconds(_ time: timeval) -> Double {
    Double(time.tv_sec) + Double(time.tv_usec) / 1_000_000
  }

  public static func - (left: ProcessorTime, right: ProcessorTime) -> ProcessorTime {
    ProcessorTime(
      userSeconds: left.userSeconds - right.userSeconds,
      systemSeconds: left.systemSeconds - right.systemSeconds)
  }
}

/// What the kernel says of any process, read from /proc.
public struct ProcessUsage: Equatable, Sendable {
  public let time: ProcessorTime
  public let residentBytes: Int
  /// The most it ever was.
  public let residentBytesMax: Int

  /// Nil if there is no such process.
  public init?(pid: Int32) {
    guard
      let stat = Self.text(of: "/proc/\(pid)/stat"),
      let status = Self.text(of: "/proc/\(pid)/status"),
      // The second field is the program's name in parentheses, in which anything may stand.
      let nameEnd = stat.lastIndex(of: ")")
    else { return nil }
    let fields = stat[nameEnd...].split(separator: " ")
    let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
    // Fields 14 and 15 of proc(5); here ")" stands for the second.
    guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else {
      return nil
    }
    time = ProcessorTime(userSeconds: user / ticks, systemSeconds: system / ticks)
    residentBytes = Self.kibibytes("VmRSS:", in: status) * 1024
    residentBytesMax = Self.kibibytes("VmHWM:", in: status) * 1024
  }

  private static func kibibytes(_ name: String, in status: String) -> Int {
    let line = status.split(separator: "\n").first { $0.hasPrefix(name) }
    let fields = line?.split(whereSeparator: { $0 == " " || $0 == "\t" })
    return fields.flatMap { $0.count > 1 ? Int($0[1]) : nil } ?? 0
  }

  private static func text(of path: String) -> String? {
    let raw = open(path, O_RDONLY | O_CLOEXEC)
    guard raw >= 0 else { return nil }
    let file = FileDescriptor(owning: raw)
    let bytes = [UInt8](unsafeUninitializedCapacity: 8192) { room, count in
      if case .count(let size) = file.read(into: UnsafeMutableRawBufferPointer(room)) {
        count = size
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
