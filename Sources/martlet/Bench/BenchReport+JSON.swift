import IO
import JSON

extension BenchReport {
  /// The report for programs: one object on one line.
  var json: String {
    var json = JSONWriter()
    json.object { object in
      object.field("name", options.name)
      object.field("broker", broker)
      object.field("measured_seconds", measuredSeconds)
      object.field("interrupted", isInterrupted)
      writeOptions(into: &object)
      write(published, as: "published", into: &object)
      write(confirmed, as: "confirmed", into: &object)
      write(delivered, as: "delivered", into: &object)
      write(acknowledged, as: "acknowledged", into: &object)
      object.field("delivered_bytes_per_second", deliveredBytesPerSecond)
      write(consuming.latency, as: "end_to_end_latency_microseconds", into: &object)
      write(publishing.latency, as: "confirm_latency_microseconds", into: &object)
      writeGenerator(into: &object)
      writeBroker(into: &object)
      object.field("idle_connections", idleConnections)
      object.field("idle_open_seconds", idleOpenSeconds)
      writeErrors(into: &object)
    }
    return json.text
  }

  private func writeOptions(into json: inout JSONWriter) {
    json.key("options")
    json.object { object in
      object.field("publishers", options.publishers)
      object.field("consumers", options.consumers)
      object.field("queues", options.queues)
      object.field("exchange_type", options.exchangeType.rawValue)
      object.field("bindings", options.bindings)
      object.field("size", options.size)
      object.field("persistent", options.isPersistent)
      object.field("durable", options.isDurable)
      object.field("confirm", options.confirmWindow)
      object.field("transaction", options.transaction)
      object.field("prefetch", options.prefetch)
      object.field("ack_every", options.acknowledgeEvery)
      object.field("rate", options.rate)
      object.field("messages", options.messages)
    }
  }

  private func write(_ rated: Rated, as name: String, into json: inout JSONWriter) {
    json.key(name)
    json.object { object in
      object.field("total", rated.total)
      object.field("measured", rated.measured)
      object.field("per_second", rated.perSecond)
    }
  }

  private func write(_ latency: LatencyHistogram, as name: String, into json: inout JSONWriter) {
    json.key(name)
    json.object { object in
      object.field("count", latency.count)
      guard latency.count > 0 else { return }
      object.field("min", Double(latency.min) / 1000)
      object.field("mean", latency.mean / 1000)
      for (name, percent) in [("p50", 50.0), ("p95", 95), ("p99", 99), ("p999", 99.9)] {
        object.field(name, Double(latency.percentile(percent)) / 1000)
      }
      object.field("max", Double(latency.max) / 1000)
    }
  }

  private func writeGenerator(into json: inout JSONWriter) {
    json.key("generator")
    json.object { object in
      object.field("cpu_seconds", ownTime.seconds)
      object.field("publishing_cpu_seconds", publishing.processorTime.seconds)
      object.field("publishing_user_seconds", publishing.processorTime.userSeconds)
      object.field("consuming_cpu_seconds", consuming.processorTime.seconds)
      object.field("consuming_user_seconds", consuming.processorTime.userSeconds)
    }
  }

  /// Empty where the broker's process is not known.
  private func writeBroker(into json: inout JSONWriter) {
    json.key("broker_process")
    json.object { object in
      guard let time = brokerTime, let usage = (final ?? end)?.broker else { return }
      object.field("cpu_seconds", time.seconds)
      object.field("user_seconds", time.userSeconds)
      if handled > 0 {
        object.field("cpu_seconds_per_million", time.seconds / Double(handled) * 1_000_000)
      }
      object.field("resident_bytes", usage.residentBytes)
      object.field("resident_bytes_max", usage.residentBytesMax)
      if let bytes = brokerBytesPerIdleConnection {
        object.field("resident_bytes_per_idle_connection", bytes)
      }
    }
  }

  private func writeErrors(into json: inout JSONWriter) {
    json.key("errors")
    json.object { object in
      object.field("lost", errors.lost)
      object.field("surplus", errors.surplus)
      object.field("out_of_order", errors.misordered)
      object.field("foreign", errors.foreign)
      object.field("refused", errors.refused)
      object.field("returned", errors.returned)
      object.field("unconfirmed", errors.unconfirmed)
      object.field("blocked", errors.blocked)
      object.key("failures")
      object.array { array in
        for failure in errors.failures { array.value(failure) }
      }
    }
  }
}

extension JSONWriter {
  fileprivate mutating func field(_ name: String, _ number: Double) {
    key(name)
    value(number)
  }
}
