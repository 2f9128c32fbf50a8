import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A journal that says what this program does not know is of a newer version, and stays as it is.
@Suite struct NewerJournalTests {
  private static func append(
    _ journal: Journal, kind: UInt8, flags: UInt8 = 0, _ names: [Name]
  ) {
    var buffer = ByteBuffer()
    for name in names { buffer.append(name) }
    buffer.append(FieldTable())
    let (_, payload) = journal.append(
      kind: kind, flags: flags, word: 77, payloadSize: buffer.count)
    payload.copyMemory(from: buffer.readable.baseAddress!, byteCount: buffer.count)
  }

  @Test(arguments: [
    (UInt8(99), UInt8(0), [Name](), "a record of kind 99"),
    (15, 0, [], "a record of kind 15"),
    (34, 0, ["/", "x", "x-delayed"], "an exchange 'x' of type 'x-delayed'"),
    (32, 0, ["other", "q"], "the virtual host 'other'"),
    (34, 0, ["other", "x", "direct"], "the virtual host 'other'"),
    (32, 16, ["/", "q"], "a record of kind 32 with flags 16"),
  ])
  func isRefused(kind: UInt8, flags: UInt8, names: [Name], what: String) throws {
    let broker = try TestBroker()
    broker.durableTurn()
    let position = broker.journal.endPosition
    broker.turn { Self.append(broker.journal, kind: kind, flags: flags, names) }
    broker.durableTurn()
    let error = #expect(throws: JournalError.self) { _ = try broker.restarted() }
    #expect(error == .unknown(what, position: position))
    #expect(error?.isDamage == false)
    #expect(
      error?.description
        == "log position \(position) has \(what), which this program does not know: the journal was"
        + " written by a newer version")
  }
}
