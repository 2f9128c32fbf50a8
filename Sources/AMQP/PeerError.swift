import Base

/// A peer's mistake: it closes the peer's channel or, when the code is a hard one, its connection.
/// The texts are in `Generated/Replies.swift`.
public struct PeerError: Error, Equatable, Sendable, CustomStringConvertible {
  public let code: ReplyCode
  /// The explanation, without the code's name.
  public let text: String

  public init(_ code: ReplyCode, _ text: String) {
    self.code = code
    self.text = text
  }

  /// What goes on the wire: the code's name and the text, cut at 255 bytes.
  public var replyText: Name { Name("\(code.name) - \(text)") }

  public var description: String { "\(code.rawValue) \(code.name): \(text)" }
}
