import AMQP
import Base
import Glibc

/// Finding a header in a message's table without reading the others.
enum HeaderLookup {
  /// Where a header's value is, with its type letter, in a table with its length in front; nil if there is
  /// none. Of a name that stands twice the first counts.
  static func place(of name: StaticString, in headers: RawSpan) -> Range<Int>? {
    guard !headers.isEmpty else { return nil }
    do throws(MalformedInput) {
      var cursor = try FieldTableCursor(headers)
      while try cursor.next() {
        guard cursor.name.count == name.utf8CodeUnitCount,
          equals(headers.extracting(cursor.name), name)
        else { continue }
        return cursor.value
      }
    } catch {
      // Whoever publishes has the whole table looked at.
    }
    return nil
  }

  /// The same for a name that is not known before.
  static func place(of name: Name, in headers: RawSpan) -> Range<Int>? {
    guard !headers.isEmpty else { return nil }
    do throws(MalformedInput) {
      var cursor = try FieldTableCursor(headers)
      while try cursor.next() {
        if Name(copying: headers.extracting(cursor.name)) == name { return cursor.value }
      }
    } catch {
      // Whoever publishes has the whole table looked at.
    }
    return nil
  }

  /// Whether the name with its length stands among the bytes of a table, wherever that is: without it the table
  /// has no such header. It does not walk the table.
  static func mayHave(_ name: StaticString, in headers: RawSpan) -> Bool {
    let size = name.utf8CodeUnitCount
    return headers.withUnsafeBytes { bytes in
      guard var place = bytes.baseAddress else { return false }
      var left = bytes.count
      // What is found has room for a name behind it.
      while left > size, let found = memchr(place, Int32(size), left - size) {
        let next = UnsafeRawPointer(found) + 1
        if memcmp(next, name.utf8Start, size) == 0 { return true }
        left -= next - place
        place = next
      }
      return false
    }
  }

  static func equals(_ bytes: RawSpan, _ name: StaticString) -> Bool {
    bytes.withUnsafeBytes {
      $0.elementsEqual(
        UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
    }
  }
}
