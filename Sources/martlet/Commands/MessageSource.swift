import Client
import Glibc
import IO
import Server

/// Where `martlet publish` has its messages from.
struct MessageSource {
  private enum Kind {
    /// One message.
    case whole([UInt8])
    /// One message for each line of standard input, with the key in front if `hasKeys`.
    case lines(LineReader, hasKeys: Bool)
    case ended
  }

  private var kind: Kind
  private var lineNumber = 0

  struct Item {
    /// Nil for the key of the command line.
    let key: Name?
    let body: [UInt8]
  }

  static let bodySizeMax = 512 << 20
  static let bodySizeMaxWords = Quantity.words(bytes: bodySizeMax)

  init(_ invocation: Invocation, _ notes: Notes) async throws(Failure) {
    if let body = invocation[Publish.body] {
      kind = .whole(Array(body.utf8))
    } else if let file = invocation[Publish.file], file != "-" {
      do throws(SystemError) {
        kind = .whole(try WholeFile.read(file, bytesMax: Self.bodySizeMax))
      } catch {
        throw Failure("the message cannot be read: \(error)")
      }
    } else {
      let hasKeys = invocation[Publish.keyFromLine]
      let isLines = hasKeys || invocation[Publish.lines]
      if isatty(STDIN_FILENO) == 1 {
        let what = isLines ? "messages, one a line," : "the message"
        notes.say("reading \(what) from standard input; Ctrl-D ends it")
      }
      let input = try StandardInput()
      kind =
        isLines
        ? .lines(LineReader(input), hasKeys: hasKeys) : .whole(try await Self.all(of: input))
    }
  }

  /// The next message; nil at the end.
  mutating func next() async throws(Failure) -> Item? {
    switch kind {
    case .ended: return nil
    case .whole(let body):
      kind = .ended
      return Item(key: nil, body: body)
    case .lines(var reader, let hasKeys):
      // The reader is taken out while it is used, so that its buffer is not copied.
      kind = .ended
      guard let line = try await reader.next() else { return nil }
      kind = .lines(reader, hasKeys: hasKeys)
      lineNumber += 1
      return hasKeys ? try Self.split(line, lineNumber) : Item(key: nil, body: line)
    }
  }

  /// `KEY<TAB>BODY`.
  private static func split(_ line: [UInt8], _ number: Int) throws(Failure) -> Item {
    guard let tab = line.firstIndex(of: UInt8(ascii: "\t")) else {
      throw Failure("line \(number) has no tab between its key and its body")
    }
    guard tab <= Name.sizeMax else {
      throw Failure("line \(number): the key is longer than \(Name.sizeMax) bytes")
    }
    return Item(key: Name(Array(line[..<tab])), body: Array(line[(tab + 1)...]))
  }

  private static func all(of input: StandardInput) async throws(Failure) -> [UInt8] {
    var bytes: [UInt8] = []
    while true {
      let chunk = try await input.chunk()
      if chunk.isEmpty { return bytes }
      bytes += chunk
      guard bytes.count <= bodySizeMax else {
        throw Failure("the message is larger than \(bodySizeMaxWords)")
      }
    }
  }
}
