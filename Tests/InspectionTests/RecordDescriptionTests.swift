import Journal
import Testing

@testable import Inspection

/// What is said of records, also of those that nobody here knows.
@Suite struct RecordDescriptionTests {
  private static func problem(_ kind: UInt8, flags: UInt8 = 0) -> RecordProblem? {
    var bytes: [UInt8] = []
    RawRecord(kind: kind, flags: flags, payload: []).append(to: &bytes)
    return bytes.withUnsafeBytes { bytes in
      RecordDescription(RecordView(position: 0, base: bytes.baseAddress!, size: bytes.count))
        .problem
    }
  }

  @Test func whatOnlyANewerVersionKnowsIsNamedAndIgnorableKindsArePassedOver() {
    #expect(Self.problem(15) == .unknownKind(15))
    #expect(Self.problem(99) == .unknownKind(99))
    #expect(Self.problem(127) == .unknownKind(127))
    #expect(Self.problem(128) == nil)
    #expect(Self.problem(255) == nil)
    #expect(Self.problem(33, flags: 4) == .unknownFlags(4, kind: 33))
    #expect(Self.problem(17) == nil)
  }
}
