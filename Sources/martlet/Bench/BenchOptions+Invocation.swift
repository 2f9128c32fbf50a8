import Client

extension BenchOptions {
  /// Takes the words of the command line, settles what depends on which were given, and refuses
  /// what cannot work.
  init(_ invocation: Invocation) throws(Failure) {
    do {
      url = try ConnectionURL(invocation[BrokerOptions.url])
    } catch {
      throw Failure("--url: \(error)", code: .usage)
    }
    takeTopology(invocation)
    takeMessages(invocation)
    takeTime(invocation)
    name = invocation[BenchCommand.name]
    idleConnections = invocation[BenchCommand.idle]
    let publishersDefault = idleConnections > 0 ? 0 : 1
    publishers = invocation[BenchCommand.publishers] ?? publishersDefault
    consumers = invocation[BenchCommand.consumers] ?? publishersDefault
    keepsQueues = invocation[BenchCommand.keep]
    brokerPID = invocation[BenchCommand.pid].map { Int32($0) }
    printsJSON = invocation[BenchCommand.json]
    printsProgress = invocation[BenchCommand.progress] || Console.isWatched
    try check()
  }

  private mutating func takeTopology(_ invocation: Invocation) {
    queues = invocation[BenchCommand.queues]
    queue = invocation[BenchCommand.queue]
    queueType = invocation[BenchCommand.queueType]
    exchange = invocation[BenchCommand.exchange]
    exchangeType = invocation[BenchCommand.exchangeType]
    bindings = invocation[BenchCommand.bindings]
    arguments = invocation[BenchCommand.arguments]
    isDurable = invocation[BenchCommand.durable]
  }

  private mutating func takeMessages(_ invocation: Invocation) {
    size = invocation[BenchCommand.size]
    isPersistent = invocation[BenchCommand.persistent]
    isMandatory = invocation[BenchCommand.mandatory]
    priorityMax = invocation[BenchCommand.priorities]
    expiration = invocation[BenchCommand.expiration]
    delayMax = invocation[BenchCommand.delay] ?? 0
    if delayMax > 0, exchangeType == .default { exchangeType = .direct }
    confirmWindow = invocation[BenchCommand.confirm]
    transaction = invocation[BenchCommand.transaction]
    prefetch = invocation[BenchCommand.prefetch]
    acknowledgeEvery = invocation[BenchCommand.ackEvery]
    consumerArguments = invocation[BenchCommand.consumerArguments]
  }

  /// A number of messages stands for a duration, and leaves nothing to warm up with.
  private mutating func takeTime(_ invocation: Invocation) {
    rate = invocation[BenchCommand.rate]
    messages = invocation[BenchCommand.messages] ?? 0
    let limit = invocation[BenchCommand.duration] ?? (messages > 0 ? 0 : 10_000)
    durationSeconds = Double(limit) / 1000
    warmUpSeconds = messages > 0 ? 0 : Double(invocation[BenchCommand.warmUp]) / 1000
    drainSeconds = Double(invocation[BenchCommand.drain]) / 1000
  }

  private func check() throws(Failure) {
    let isNamedInVain = !exchange.isEmpty && exchangeType == .default
    let bindsInVain = bindings > 0 && (exchangeType == .default || exchangeType == .fanout)
    let isUneven = isReadByAll && consumers > queues && consumers % queues > 0
    let objections: [(isWrong: Bool, text: String)] = [
      (size > Self.sizeMax, "--size can be \(Self.sizeMax) at most"),
      (isNamedInVain, "--exchange needs an --exchange-type"),
      (bindsInVain, "--bindings needs a direct, topic or headers exchange"),
      (
        prefetch > 0 && acknowledgeEvery > prefetch,
        "--ack-every \(acknowledgeEvery) is never reached with --prefetch \(prefetch)"
      ),
      (
        confirmWindow > 0 && transaction > 0,
        "--confirm and --transaction exclude each other"
      ),
      (
        publishers + consumers + idleConnections == 0,
        "there is nothing to do without publishers, consumers and idle connections"
      ),
      (
        isUneven && publishers > 0,
        "--consumers must be a multiple of --queues for streams, which each of them reads"
      ),
      (
        rate > 0 && rate < publishers,
        "--rate must be at least one message a second for each publisher"
      ),
    ]
    if let objection = objections.first(where: \.isWrong) {
      throw Failure(objection.text, code: .usage)
    }
  }
}
