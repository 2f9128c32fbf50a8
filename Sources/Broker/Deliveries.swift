/// Queues and consumers that may have something to deliver, and how much of it a turn delivers.
final class Deliveries {
  /// Queues with messages and perhaps consumers for them.
  private var touched: [Queue] = []
  private var pumping: [Queue] = []
  /// Those among them that had more to deliver than the turn had left: they go on in the next one.
  private var unfinished: [Queue] = []
  private var budget: DeliveryBudget
  /// Lines of consumers that may take messages again.
  private var moving: [ConsumerLine] = []
  /// Consumers in such lines that go on in a turn.
  private static let consumersPerTurn = 16_384
  private var consumersLeft = consumersPerTurn
  /// Queues after which the time is looked at again.
  private static let queuesPerLook = 16
  /// See `Broker.isTurnLong`.
  var isTurnLong: () -> Bool = { false }

  init(bytesPerTurn: Int) {
    budget = DeliveryBudget(bytesPerTurn: bytesPerTurn)
  }

  /// Some of it is left for the next turn.
  var hasMore: Bool { !moving.isEmpty || budget.hasRunOut }

  func add(_ queue: Queue) { touched.append(queue) }

  func add(_ line: ConsumerLine) { moving.append(line) }

  /// A turn begins.
  func renew() {
    consumersLeft = Self.consumersPerTurn
    budget.renew()
    // Those whose turn never came are in front of them.
    touched.append(contentsOf: unfinished)
    unfinished.removeAll(keepingCapacity: true)
  }

  /// Delivers what can be delivered, as far as the budget reaches.
  func deliver(isOverdrawing: Bool) {
    var budget = self.budget
    budget.isOverdrawing = isOverdrawing
    if !moving.isEmpty { moveLines(&budget) }
    deliverTouched(&budget)
    if !touched.isEmpty { budget.hasRunOut = true }
    self.budget = budget
  }

  /// Delivers of one queue what its consumers can take, as far as requests may go, before something of it
  /// is dropped or refused.
  func serve(_ queue: Queue) {
    guard queue.consumerCount > 0 else { return }
    var budget = self.budget
    budget.isOverdrawing = true
    guard !budget.isSpent else { return }
    let wasTouched = queue.isTouched
    pump(queue, &budget)
    // It is in the list already.
    if wasTouched { queue.isTouched = true }
    budget.isOverdrawing = false
    self.budget = budget
  }

  private func deliverTouched(_ budget: inout DeliveryBudget) {
    while !touched.isEmpty, !budget.isSpent {
      swap(&touched, &pumping)
      var next = 0
      while next < pumping.count, !budget.isSpent {
        if next % Self.queuesPerLook == 0, isOver(budget) { break }
        let queue = pumping[next]
        next += 1
        guard !queue.isDeleted else { continue }
        pump(queue, &budget)
        queue.countEntries()
      }
      let isOver = next < pumping.count
      if isOver { touched.insert(contentsOf: pumping[next...], at: 0) }
      pumping.removeAll(keepingCapacity: true)
      if isOver { return }
    }
  }

  /// The rest is for the next turn. What a request is to see is delivered all the same.
  private func isOver(_ budget: DeliveryBudget) -> Bool {
    !budget.isOverdrawing && !budget.isHardlySpent && isTurnLong()
  }

  @inline(__always)
  private func pump(_ queue: Queue, _ budget: inout DeliveryBudget) {
    let isFinished = queue.pump(&budget) && (queue.settings == nil || queue.goOn(&budget))
    if queue.times != nil { queue.lookAtFront() }
    if isFinished { return }
    budget.hasRunOut = true
    if queue.isTouched { return }
    queue.isTouched = true
    unfinished.append(queue)
  }

  /// Consumers that waited with others go on, before anybody is served: those of their queues with
  /// lower priorities are not to take what is theirs. Whoever waited longest is served first, unless
  /// queues are left from the last turn: they were touched before, and so come first.
  private func moveLines(_ budget: inout DeliveryBudget) {
    let lines = moving
    moving = []
    var heads: [Queue] = []
    for line in lines {
      repeat {
        if let head = line.goOn(&consumersLeft) { heads.append(head) }
      } while line.isMoving && consumersLeft > 0
      if line.isMoving { moving.append(line) }
    }
    if budget.ranOutBefore { return }
    // They were touched, so that those which are not reached now have their turn with the others.
    for queue in heads where !queue.isDeleted && !budget.isSpent { pump(queue, &budget) }
  }
}
