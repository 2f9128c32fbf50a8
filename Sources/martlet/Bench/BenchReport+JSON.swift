import IO

extension BenchReport {
  /// The report for programs: one object on one line.
  var json: String {
    var object = JSONObject()
    object.add("name", text: options.name)
    object.add("broker", text: broker)
    object.add("options", object: optionsJSON)
    object.add("measured_seconds", number: measuredSeconds)
    object.add("interrupted", flag: isInterrupted)
    object.add("published", object: json(published))
    object.add("confirmed", object: json(confirmed))
    object.add("delivered", object: json(delivered))
    object.add("acknowledged", object: json(acknowledged))
    object.add("delivered_bytes_per_second", number: deliveredBytesPerSecond)
    object.add("end_to_end_latency_microseconds", object: json(consuming.latency))
    object.add("confirm_latency_microseconds", object: json(publishing.latency))
    object.add("generator", object: generatorJSON)
    object.add("broker_process", object: brokerJSON)
    object.add("idle_connections", number: idleConnections)
    object.add("idle_open_seconds", number: idleOpenSeconds)
    object.add("errors", object: errorsJSON)
    return object.text
  }

  private var optionsJSON: JSONObject {
    var object = JSONObject()
    object.add("publishers", number: options.publishers)
    object.add("consumers", number: options.consumers)
    object.add("queues", number: options.queues)
    object.add("exchange_type", text: options.exchangeType.rawValue)
    object.add("bindings", number: options.bindings)
    object.add("size", number: options.size)
    object.add("persistent", flag: options.isPersistent)
    object.add("durable", flag: options.isDurable)
    object.add("confirm", number: options.confirmWindow)
    object.add("prefetch", number: options.prefetch)
    object.add("ack_every", number: options.acknowledgeEvery)
    object.add("rate", number: options.rate)
    object.add("messages", number: options.messages)
    return object
  }

  private func json(_ rated: Rated) -> JSONObject {
    var object = JSONObject()
    object.add("total", number: rated.total)
    object.add("measured", number: rated.measured)
    object.add("per_second", number: rated.perSecond)
    return object
  }

  private func json(_ latency: LatencyHistogram) -> JSONObject {
    var object = JSONObject()
    object.add("count", number: latency.count)
    guard latency.count > 0 else { return object }
    object.add("min", number: Double(latency.min) / 1000)
    object.add("mean", number: latency.mean / 1000)
    for (name, percent) in [("p50", 50.0), ("p95", 95), ("p99", 99), ("p999", 99.9)] {
      object.add(name, number: Double(latency.percentile(percent)) / 1000)
    }
    object.add("max", number: Double(latency.max) / 1000)
    return object
  }

  private var generatorJSON: JSONObject {
    var object = JSONObject()
    object.add("cpu_seconds", number: ownTime.seconds)
    object.add("publishing_cpu_seconds", number: publishing.processorTime.seconds)
    object.add("publishing_user_seconds", number: publishing.processorTime.userSeconds)
    object.add("consuming_cpu_seconds", number: consuming.processorTime.seconds)
    object.add("consuming_user_seconds", number: consuming.processorTime.userSeconds)
    return object
  }

  private var brokerJSON: JSONObject {
    var object = JSONObject()
    guard let time = brokerTime, let usage = (final ?? end)?.broker else { return object }
    object.add("cpu_seconds", number: time.seconds)
    object.add("user_seconds", number: time.userSeconds)
    if handled > 0 {
      object.add(
        "cpu_seconds_per_million", number: time.seconds / Double(handled) * 1_000_000)
    }
    object.add("resident_bytes", number: usage.residentBytes)
    object.add("resident_bytes_max", number: usage.residentBytesMax)
    if let bytes = brokerBytesPerIdleConnection {
      object.add("resident_bytes_per_idle_connection", number: bytes)
    }
    return object
  }

  private var errorsJSON: JSONObject {
    var object = JSONObject()
    object.add("lost", number: errors.lost)
    object.add("surplus", number: errors.surplus)
    object.add("out_of_order", number: errors.misordered)
    object.add("foreign", number: errors.foreign)
    object.add("refused", number: errors.refused)
    object.add("returned", number: errors.returned)
    object.add("unconfirmed", number: errors.unconfirmed)
    object.add("blocked", number: errors.blocked)
    object.add("failures", texts: errors.failures)
    return object
  }
}

/// A JSON object that is written as it grows.
struct JSONObject {
  private var members: [String] = []

  var text: String { "{" + members.joined(separator: ",") + "}" }

  mutating func add(_ name: String, text: String) {
    add(name, Self.quoted(text))
  }

  mutating func add(_ name: String, number: Int) {
    add(name, String(number))
  }

  mutating func add(_ name: String, number: Double) {
    add(name, number.isFinite ? Figures.fixed(number, 6) : "null")
  }

  mutating func add(_ name: String, flag: Bool) {
    add(name, flag ? "true" : "false")
  }

  mutating func add(_ name: String, object: JSONObject) {
    add(name, object.text)
  }

  mutating func add(_ name: String, texts: [String]) {
    add(name, "[" + texts.map(Self.quoted).joined(separator: ",") + "]")
  }

  private mutating func add(_ name: String, _ value: String) {
    members.append("\(Self.quoted(name)):\(value)")
  }

  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case ..<" ":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
