import IO

extension BenchReport {
  /// The report for people.
  var text: String {
    var lines = ["\(options.name): \(summary)", row("broker", "\(broker) at \(options.url)")]
    lines.append(row("measured", measuredText))
    if options.idleConnections > 0 { lines.append(row("idle", idleText)) }
    if options.publishers > 0 { lines.append(row("published", rateText(published))) }
    if options.hasConfirms { lines.append(row("confirmed", rateText(confirmed))) }
    if options.consumers > 0 {
      let bytes = "  \(Figures.fixed(deliveredBytesPerSecond / 1_000_000, 1)) MB/s"
      lines.append(row("delivered", rateText(delivered) + bytes))
      if options.acknowledgeEvery > 0 {
        lines.append(row("acknowledged", rateText(acknowledged)))
      }
    }
    if consuming.latency.count > 0 {
      lines.append(row("end to end", latencyText(consuming.latency)))
    }
    if publishing.latency.count > 0 {
      lines.append(row("confirm", latencyText(publishing.latency)))
    }
    lines.append(row("generator", generatorText))
    if let text = brokerText { lines.append(row("broker used", text)) }
    lines += errorLines
    return lines.joined(separator: "\n")
  }

  private func row(_ name: String, _ text: String) -> String {
    "  " + Figures.left(name, 13) + text
  }

  private var summary: String {
    if options.isIdle { return "\(HumanWords.grouped(options.idleConnections)) idle connections" }
    var parts = [
      HumanWords.count(options.publishers, "publisher"),
      HumanWords.count(options.consumers, "consumer"),
      HumanWords.count(options.queues, options.isDurable ? "durable queue" : "transient queue"),
    ]
    if options.publishers > 0 {
      let kind = options.isPersistent ? "persistent" : "transient"
      parts.append("\(HumanWords.grouped(options.size)) B \(kind)")
    }
    if options.exchangeType != .default {
      parts.append("\(options.exchangeType.rawValue) exchange")
    }
    if options.bindings > 0 { parts.append(HumanWords.count(options.bindings, "idle binding")) }
    if options.rate > 0 { parts.append("\(HumanWords.grouped(options.rate))/s wanted") }
    if options.transaction > 0 {
      parts.append("transactions of \(HumanWords.grouped(options.transaction))")
    }
    if options.confirmWindow > 0 {
      parts.append("confirm window \(HumanWords.grouped(options.confirmWindow))")
    }
    if options.consumers > 0 {
      parts.append(
        options.acknowledgeEvery == 0
          ? "automatic acknowledgement"
          : "prefetch \(options.prefetch), ack every \(options.acknowledgeEvery)")
    }
    return parts.joined(separator: ", ")
  }

  private var measuredText: String {
    let seconds = Figures.fixed(measuredSeconds, 2)
    if isInterrupted { return "\(seconds) s, interrupted" }
    if options.messages > 0 {
      return "\(seconds) s to \(options.publishers > 0 ? "publish" : "consume") everything"
    }
    if options.isIdle { return "\(seconds) s" }
    return "\(seconds) s after \(Figures.fixed(options.warmUpSeconds, 1)) s of warm-up"
  }

  private var idleText: String {
    let perSecond = idleOpenSeconds > 0 ? Double(idleConnections) / idleOpenSeconds : 0
    var text = "\(HumanWords.grouped(idleConnections)) connections"
    text += ", opened at \(HumanWords.grouped(Int(perSecond)))/s"
    if let bytes = brokerBytesPerIdleConnection {
      text += ", \(Figures.bytes(bytes)) of the broker's memory each"
    }
    return text
  }

  /// Nil if the broker's process is not known, or other load blurs it.
  var brokerBytesPerIdleConnection: Int? {
    guard options.isIdle, idleConnections > 0, let empty = before?.broker, let full = end?.broker
    else { return nil }
    return max(0, full.residentBytes - empty.residentBytes) / idleConnections
  }

  private func rateText(_ rated: Rated) -> String {
    Figures.right(HumanWords.grouped(Int(rated.perSecond)), 12) + "/s"
      + Figures.right(HumanWords.grouped(rated.total), 15) + " in all"
  }

  private func latencyText(_ latency: LatencyHistogram) -> String {
    let percentiles = [("p50", 50.0), ("p95", 95), ("p99", 99), ("p99.9", 99.9)]
    let middle = percentiles.map { name, percent in
      "\(name) \(Figures.duration(nanoseconds: latency.percentile(percent)))"
    }
    return
      (["min \(Figures.duration(nanoseconds: latency.min))"] + middle
      + ["max \(Figures.duration(nanoseconds: latency.max))"]).joined(separator: ", ")
  }

  private var generatorText: String {
    var text = "\(Figures.fixed(ownTime.seconds, 2)) s of CPU"
    func cost(_ name: String, _ time: ProcessorTime, _ messages: Int) {
      guard messages > 0, time.seconds > 0 else { return }
      let all = Figures.fixed(time.seconds / Double(messages) * 1e9, 0)
      let user = Figures.fixed(time.userSeconds / Double(messages) * 1e9, 0)
      text += ", \(name) \(all) ns a message (\(user) user)"
    }
    cost("publishing", publishing.processorTime, published.measured)
    cost("consuming", consuming.processorTime, delivered.measured)
    return text
  }

  private var brokerText: String? {
    guard let time = brokerTime, let usage = (final ?? end)?.broker else { return nil }
    var text = "\(Figures.fixed(time.seconds, 2)) s of CPU"
    if handled > 0 {
      let perMillion = time.seconds / Double(handled) * 1_000_000
      text += " (\(Figures.fixed(perMillion, 3)) s per million messages)"
    }
    text += ", \(Figures.bytes(usage.residentBytes)) resident"
    return text + ", at most \(Figures.bytes(usage.residentBytesMax))"
  }

  private var errorLines: [String] {
    let counts = [
      (errors.lost, "lost"), (errors.surplus, "delivered more than once"),
      (errors.misordered, "out of order"), (errors.foreign, "of another run"),
      (errors.refused, "refused"), (errors.returned, "returned"),
      (errors.unconfirmed, "never confirmed"),
    ]
    var parts = counts.filter { $0.0 > 0 }.map { "\(HumanWords.grouped($0.0)) \($0.1)" }
    if parts.isEmpty, errors.failures.isEmpty { parts = ["none"] }
    var lines = parts.isEmpty ? [] : [row("errors", parts.joined(separator: ", "))]
    lines += errors.failures.map { row("failure", $0) }
    if errors.blocked > 0 {
      lines.append(row("blocked", "\(errors.blocked) times by the broker"))
    }
    return lines
  }
}
