import Base

/// Topic patterns by their definition.
enum NaiveTopic {
  static func fits(_ pattern: Name, _ key: Name) -> Bool { fits(words(pattern), words(key)) }

  private static func fits(_ pattern: ArraySlice<String>, _ key: ArraySlice<String>) -> Bool {
    guard let first = pattern.first else { return key.isEmpty }
    if first == "#" {
      return (0...key.count).contains { fits(pattern.dropFirst(), key.dropFirst($0)) }
    }
    guard let word = key.first, first == "*" || first == word else { return false }
    return fits(pattern.dropFirst(), key.dropFirst())
  }

  private static func words(_ name: Name) -> ArraySlice<String> {
    guard !name.isEmpty else { return [] }
    return name.description.split(separator: ".", omittingEmptySubsequences: false)
      .map(String.init)[...]
  }
}
