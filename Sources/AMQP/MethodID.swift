/// A method's class and number within it, as every method frame begins.
public struct MethodID: Hashable, Sendable, CustomStringConvertible {
  public let classID: UInt16
  public let methodID: UInt16

  public init(classID: UInt16, methodID: UInt16) {
    self.classID = classID
    self.methodID = methodID
  }

  /// No method: what a close says that no method caused.
  public static let none = MethodID(classID: 0, methodID: 0)

  public var description: String { name ?? "\(classID).\(methodID)" }
}
