import Client
import Glibc
import IO
import JSON
import Server

/// Where `martlet publish` has its messages from.
struct MessageSource {
  private enum Kind {
    /// One message.
    case whole([UInt8])
    /// One message for each line.
    case lines(LineReader, LineForm)
    case ended
  }

  /// What a line is.
  private enum LineForm {
    case body
    /// `KEY<TAB>BODY`.
    case keyAndBody
    /// All there is of a message.
    case json
  }

  private var kind: Kind
  private var lineNumber = 0

  struct Item {
    /// Nil where the command line says it alone.
    var exchange: Name?
    var key: Name?
    var properties: BasicProperties?
    let body: [UInt8]
  }

  static let bodySizeMax = 512 << 20
  static let bodySizeMaxWords = Quantity.words(bytes: bodySizeMax)

  init(_ invocation: Invocation, _ notes: Notes) async throws(Failure) {
    let isJSON = invocation[Publish.format] == .json
    if let body = invocation[Publish.body] {
      kind = Self.kind(of: Array(body.utf8), isJSON)
    } else if let file = invocation[Publish.file], file != "-" {
      do throws(SystemError) {
        kind = Self.kind(of: try WholeFile.read(file, bytesMax: Self.bodySizeMax), isJSON)
      } catch {
        throw Failure("the message cannot be read: \(error)")
      }
    } else {
      let form: LineForm? =
        if isJSON {
          .json
        } else if invocation[Publish.keyFromLine] {
          .keyAndBody
        } else {
          invocation[Publish.lines] ? .body : nil
        }
      if isatty(STDIN_FILENO) == 1 {
        let what = form == nil ? "the message" : "messages, one a line,"
        notes.say("reading \(what) from standard input; Ctrl-D ends it")
      }
      let input = try StandardInput()
      kind =
        if let form {
          .lines(LineReader(input), form)
        } else {
          .whole(try await Self.all(of: input))
        }
    }
  }

  private static func kind(of bytes: [UInt8], _ isJSON: Bool) -> Kind {
    isJSON ? .lines(LineReader(bytes), .json) : .whole(bytes)
  }

  /// The next message; nil at the end.
  mutating func next() async throws(Failure) -> Item? {
    while true {
      switch kind {
      case .ended: return nil
      case .whole(let body):
        kind = .ended
        return Item(body: body)
      case .lines(var reader, let form):
        // The reader is taken out while it is used, so that its buffer is not copied.
        kind = .ended
        guard let line = try await reader.next() else { return nil }
        kind = .lines(reader, form)
        lineNumber += 1
        switch form {
        case .body: return Item(body: line)
        case .keyAndBody: return try Self.split(line, lineNumber)
        case .json:
          // Lines between messages, as some tools print them, are none.
          if line.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }) { continue }
          return try Self.json(line, lineNumber)
        }
      }
    }
  }

  private static func json(_ line: [UInt8], _ number: Int) throws(Failure) -> Item {
    do throws(MessageJSON.Problem) {
      let message = try MessageJSON(line)
      return Item(
        exchange: message.exchange, key: message.key, properties: message.properties,
        body: message.body)
    } catch {
      throw Failure("line \(number): \(error.text)")
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
