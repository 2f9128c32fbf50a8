import Base
import Broker
import Journal

extension JournalRepair {
  /// What is damaged, what is set aside, what is lost and what may come twice, for the person who
  /// repairs.
  package var report: String {
    var text = "Damaged in \(verification.survey.directory):\n\n"
    for problem in verification.problems { text += "  \(problem)\n" }
    text += queuesText + declarationsText + asideText
    text += """

      The journal as it was is in "before". Lane files that were sound are the same files there: space
      that the broker gives back in them is gone in both. Remove this directory when nothing is missed.

      """
    return text
  }

  /// How many queues lose messages, get some twice, or have others than before.
  private var queuesText: String {
    var text = "\nQueues:\n\n"
    if outcomes.isEmpty { text += "  none\n" }
    for outcome in outcomes {
      let name = outcome.declaration.names(2)[1]
      let isPartition = outcome.lane.role == .partition
      let partition = isPartition ? ", partition \(outcome.lane.priority)" : ""
      text +=
        "  \"\(name)\" (\(outcome.declaration.word))\(partition): \(Self.count(outcome.keptCount)) kept"
      text += Self.lossText(outcome)
      if !outcome.lostOffsets.isEmpty { text += ": \(outcome.lostOffsets.text)" }
      if outcome.returningCountMax > 0 {
        text += "; up to \(outcome.returningCountMax) of these may have been consumed before"
      }
      text += "\n"
    }
    let census = verification.census
    if !census.damage.isEmpty || !census.isProven {
      text += """

          Records of the log are lost. Messages whose consumption they told of are delivered again, and
          all messages are marked redelivered. Where the number of lost messages is unknown, the end of
          the log is damaged, and nothing behind it shows how many stood there, if any.

        """
    }
    return text
  }

  /// What was declared without proof.
  private var declarationsText: String {
    var text = ""
    for outcome in outcomes where outcome.lane.queueDeclaration != outcome.declaration {
      text +=
        "\nThe declaration of queue \(outcome.declaration.word) is lost: its messages are in the durable"
        + " \(outcome.lane.role == .partition ? "stream" : "queue")\n\"\(outcome.declaration.names(2)[1])\" now, without bindings but those that are"
        + " known.\n"
    }
    let census = verification.census
    guard !census.isProven else { return text }
    text += """

      There was no sound checkpoint. These declarations were read from a damaged one, or from the log;
      look whether they are what you know, and declare what is missing:


      """
    for exchange in census.exchanges.values.sorted(by: { $0.word < $1.word }) {
      let names = exchange.names(3)
      text += "  exchange \"\(names[1])\" of type \(names[2])\n"
    }
    for outcome in outcomes { text += "  queue \"\(outcome.declaration.names(2)[1])\"\n" }
    for binding in census.bindings.sorted(by: { $0.word < $1.word }) {
      let (isToExchange, id) = binding.destination
      text +=
        "  binding of \(isToExchange ? "exchange" : "queue") \(id) to exchange \(binding.word)"
        + " with key \"\(binding.names(1, skipping: 4)[0])\"\n"
    }
    return text
  }

  private var asideText: String {
    var text = "\nSet aside, as it stood in the files:\n\n"
    for range in damagedPieces {
      text += "  \(Self.name(range)): the log from \(range.lowerBound) to \(range.upperBound)\n"
    }
    for block in verification.damagedBlocks {
      text +=
        "  \(Self.name(block)): messages \(block.first) to \(block.last) of lane \(block.lane);"
        + " those that\n    can be read, but may be changed, in \(Self.messagesName(block))\n"
    }
    for (found, range) in damagedParts {
      text += "  \(Self.name(found, range)): \(range.count) bytes of \(found.name)\n"
    }
    if damagedPieces.isEmpty, verification.damagedBlocks.isEmpty, damagedParts.isEmpty {
      text += "  nothing but the journal as a whole\n"
    }
    return text
  }

  private static func lossText(_ outcome: Outcome) -> String {
    switch (outcome.lostCountMax, outcome.isLossUnknown) {
    case (0, false): ""
    case (let count, false): ", up to \(count) lost"
    case (0, true): ", an unknown number lost"
    case (let count, true): ", an unknown number lost, up to \(count) of them before the log's end"
    }
  }

  private static func count(_ number: Int) -> String {
    "\(number) message\(number == 1 ? "" : "s")"
  }
}
