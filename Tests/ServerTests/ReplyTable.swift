import Base
import IO

/// The replies as `Specs/Tables/replies.txt` has them: what clients read is compared with its source,
/// not with the code that was made of it.
enum ReplyTable {
  struct Code {
    let number: UInt16
    let name: String
    let isHard: Bool
  }

  struct Text {
    let code: Code
    let template: String

    /// What stands on the wire when the placeholders are filled in, in their order.
    func filled(_ arguments: [String]) -> Name {
      var rest = template[...]
      var text = "\(code.name) - "
      for argument in arguments {
        guard let open = rest.firstIndex(of: "{"), let close = rest[open...].firstIndex(of: "}")
        else { break }
        text += rest[..<open] + argument
        rest = rest[rest.index(after: close)...]
      }
      return Name(text + rest)
    }
  }

  static let texts: [String: Text] = {
    let path = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    do throws(SystemError) {
      let bytes = try WholeFile.read("/\(path)/Specs/Tables/replies.txt", bytesMax: 1 << 20)
      return parse(String(decoding: bytes, as: UTF8.self))
    } catch {
      invariantFailed("the table of replies cannot be read: \(error)")
    }
  }()

  private static func parse(_ table: String) -> [String: Text] {
    var codes: [UInt16: Code] = [:]
    var texts: [String: Text] = [:]
    for line in table.split(separator: "\n") {
      let words = line.split(separator: " ", omittingEmptySubsequences: true)
      switch words.first {
      case "code":
        let number = UInt16(words[1])!
        codes[number] = Code(number: number, name: String(words[2]), isHard: words[3] == "hard")
      case "text":
        let template = line.drop { $0 != "\"" }.dropFirst().dropLast()
        texts[String(words[1])] = Text(code: codes[UInt16(words[2])!]!, template: String(template))
      default: break
      }
    }
    return texts
  }
}
