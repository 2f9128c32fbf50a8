import IO
import Testbed
import Testing

@testable import Inspection
@testable import Journal

/// A journal of an older version is refused with one text, whichever file says so first, and stays as it is.
@Suite struct OlderJournalTests {
  private let damaged: DamagedJournal
  private let file: String
  private let before: [String: [UInt8]]

  init() throws {
    damaged = try DamagedJournal()
    let name = try #require(damaged.names(".segment").first)
    try File(damaged.path(name), .readWrite).write(at: 8, [2, 0, 0, 0])
    file = damaged.path(name)
    before = try damaged.snapshot()
  }

  private var refusal: JournalError { .older(file: file, version: 2) }
  private static let text =
    " has format version 2, older than this program can read, which begins at 5; nothing was changed:"
    + " start the version that wrote it, or put the journal elsewhere to begin a new one"

  @Test func theBrokerDoesNotStart() throws {
    #expect(try damaged.refusal()?.hasSuffix(Self.text) == true)
    #expect(try damaged.snapshot() == before)
  }

  /// Repair begins with it.
  @Test func verifyRefuses() throws {
    #expect(throws: refusal) { try damaged.verify() }
    #expect(try damaged.snapshot() == before)
  }

  /// Inspect begins with it.
  @Test func aSurveyRefuses() throws {
    #expect(throws: refusal) { try JournalSurvey(directory: damaged.journal) }
    #expect(try damaged.snapshot() == before)
  }

  @Test func theTextSaysWhatToDo() {
    #expect(!refusal.isDamage)
    #expect(refusal.description == file + Self.text)
  }

  @Test(arguments: [".checkpoint", ".lanes"])
  func soIsEveryOtherFile(suffix: String) throws {
    let other = try DamagedJournal()
    let name = try #require(
      suffix == ".lanes" ? other.names(suffix).first : other.names(suffix).last)
    try File(other.path(name), .readWrite).write(at: 8, [1, 0, 0, 0])
    let refusal = JournalError.older(file: other.path(name), version: 1)
    #expect(try other.refusal()?.contains(" has format version 1, older than") == true)
    #expect(throws: refusal) { try other.verify() }
  }
}
