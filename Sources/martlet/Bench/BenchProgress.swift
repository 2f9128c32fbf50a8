import IO

/// A line per second on standard error.
struct BenchProgress {
  private let options: BenchOptions
  private var start: Int64 = 0
  private var last: BenchSnapshot?

  init(_ options: BenchOptions) {
    self.options = options
  }

  mutating func tick(_ now: BenchSnapshot) {
    guard options.printsProgress else { return }
    guard let last else {
      start = now.time
      self.last = now
      return
    }
    let seconds = Double(now.time - last.time) / 1_000_000_000
    guard seconds >= 1 else { return }
    self.last = now
    func rate(_ counter: (BenchSnapshot) -> Int) -> String {
      HumanWords.grouped(Int(Double(counter(now) - counter(last)) / seconds)) + "/s"
    }
    var parts: [String] = []
    if options.publishers > 0 { parts.append("published \(rate { $0.published })") }
    if options.hasConfirms { parts.append("confirmed \(rate { $0.confirmed })") }
    if options.consumers > 0 { parts.append("delivered \(rate { $0.delivered })") }
    if options.acknowledgeEvery > 0 { parts.append("acknowledged \(rate { $0.acknowledged })") }
    if let broker = now.broker { parts.append("broker \(Figures.bytes(broker.residentBytes))") }
    let elapsed = Int(Double(now.time - start) / 1_000_000_000)
    Console.say("\(elapsed) s: " + parts.joined(separator: ", "))
  }
}
