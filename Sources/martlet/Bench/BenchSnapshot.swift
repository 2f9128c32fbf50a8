import IO

/// All counters of a run at one moment.
struct BenchSnapshot {
  let time: Int64
  let published: Int
  let confirmed: Int
  let delivered: Int
  let deliveredBytes: Int
  let acknowledged: Int
  let ownTime: ProcessorTime
  /// Nil if the broker's process is not known or gone.
  let broker: ProcessUsage?

  init(_ control: BenchControl, brokerPID: Int32?) {
    time = Clock.monotonicNanoseconds()
    published = control.published.load(ordering: .relaxed)
    confirmed = control.confirmed.load(ordering: .relaxed)
    delivered = control.delivered.load(ordering: .relaxed)
    deliveredBytes = control.deliveredBytes.load(ordering: .relaxed)
    acknowledged = control.acknowledged.load(ordering: .relaxed)
    ownTime = .ofThisProcess
    broker = brokerPID.flatMap { ProcessUsage(pid: $0) }
  }
}
