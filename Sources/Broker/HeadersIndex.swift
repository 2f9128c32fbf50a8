import AMQP
import Base
import Filters

/// The bindings of a headers exchange by what they ask for, so that a message costs what it matches and
/// not what there is: its headers are looked up once each, and a binding that wants all of its
/// conditions is looked at only when the one of them that fewest others share holds.
struct HeadersIndex {
  /// Names that conditions ask for, by their hashes.
  private var names: SpreadDictionary<UInt64, HeaderName> = SpreadDictionary()
  /// Bindings that want all of no conditions.
  private var always = DestinationList()
  /// Conditions that hold for the message that is being looked at.
  private var holding: [HeaderCondition] = []
  private var form = HeaderForm()
  /// Counts messages: what one met is marked with it.
  private var step: UInt64 = 0

  /// Headers of a message that cost about as much as a look-up elsewhere.
  private static let headersPerStep = 4

  var isEmpty: Bool { names.isEmpty && always.isEmpty }

  // MARK: Changing

  mutating func add(_ binding: Binding) {
    guard let predicate = binding.takePredicate() else { return }
    let row = HeadersRow(binding)
    binding.row = row
    guard !predicate.conditions.isEmpty else {
      if predicate.requiresAll {
        row.isAlways = true
        always.add(binding)
      }
      return
    }
    row.requiresAll = predicate.requiresAll
    for condition in predicate.conditions {
      guard let condition = self.condition(condition) else {
        // It never holds.
        if row.requiresAll {
          for condition in row.conditions { release(condition) }
          row.conditions = []
          return
        }
        continue
      }
      condition.users += 1
      row.conditions.append(condition)
    }
    row.places = Array(repeating: -1, count: row.conditions.count)
    if row.requiresAll {
      let rarest = row.conditions.indices.min {
        row.conditions[$0].rows.count < row.conditions[$1].rows.count
      }
      if let rarest { row.enlist(rarest) }
    } else {
      for index in row.conditions.indices { row.enlist(index) }
    }
  }

  mutating func remove(_ binding: Binding) {
    guard let row = binding.row else { return }
    binding.row = nil
    if row.isAlways { always.remove(binding) }
    for index in row.conditions.indices {
      row.strike(index)
      release(row.conditions[index])
    }
  }

  /// The condition as an object, which may be new; nil if nothing can fulfil it.
  private mutating func condition(_ wanted: FieldTable.Entry) -> HeaderCondition? {
    var form: HeaderForm?
    if wanted.value != .void {
      form = HeaderForm(wanted.value)
      guard form != nil else { return nil }
    }
    let hash = wanted.name.spread
    var name = names[hash]
    while let other = name, other.name != wanted.name { name = other.next }
    let owner = name ?? HeaderName(wanted.name, next: names[hash])
    if name == nil { names[hash] = owner }
    guard let form else {
      let present = owner.present ?? HeaderCondition(owner, form: [], hash: 0)
      owner.present = present
      return present
    }
    let valueHash = form.hash
    var found = owner.values[valueHash]
    while let other = found, other.form != form.bytes { found = other.next }
    if let found { return found }
    let new = HeaderCondition(owner, form: form.bytes, hash: valueHash)
    new.next = owner.values[valueHash]
    owner.values[valueHash] = new
    return new
  }

  /// One binding less has the condition, which goes with the last one.
  private mutating func release(_ condition: HeaderCondition) {
    condition.users -= 1
    guard condition.users == 0 else { return }
    let name = condition.name
    if name.present === condition {
      name.present = nil
    } else if let first = name.values[condition.hash] {
      name.values[condition.hash] = first.without(condition)
    }
    guard name.present == nil, name.values.isEmpty else { return }
    let hash = name.name.spread
    if let first = names[hash] { names[hash] = first.without(name) }
  }

  // MARK: Matching

  /// Shows a walk where the bindings that fit lead to. The message's headers are a well-formed table.
  mutating func match(_ message: FilteredMessage, _ walk: inout RouteWalk) {
    let headers = message.headerTable
    guard always.forEach(of: message, &walk), !names.isEmpty, !headers.isEmpty else { return }
    step += 1
    do throws(MalformedInput) {
      try look(at: headers, &walk)
    } catch {
      invariantFailed("headers that were read before are malformed: \(error.reason)")
    }
    for condition in holding {
      for place in condition.rows where !place.row.look(at: step, message, &walk) {
        holding.removeAll(keepingCapacity: true)
        return
      }
    }
    holding.removeAll(keepingCapacity: true)
  }

  /// Finds the conditions that hold.
  private mutating func look(
    at headers: RawSpan, _ walk: inout RouteWalk
  ) throws(MalformedInput) {
    var count = 0
    var cursor = try FieldTableCursor(headers)
    while try cursor.next() {
      count += 1
      guard count % Self.headersPerStep != 0 || walk.step() else { return }
      let name = headers.extracting(cursor.name)
      guard let asked = find(name), asked.step != step else { continue }
      // Of a name that stands twice the first value counts.
      asked.step = step
      if let present = asked.present { hold(present) }
      guard !asked.values.isEmpty, try form.read(headers.extracting(cursor.value)) else {
        continue
      }
      var condition = asked.values[form.hash]
      while let other = condition, other.form != form.bytes { condition = other.next }
      if let condition { hold(condition) }
    }
  }

  private mutating func hold(_ condition: HeaderCondition) {
    condition.step = step
    holding.append(condition)
  }

  private func find(_ name: RawSpan) -> HeaderName? {
    name.withUnsafeBytes { bytes in
      var found = names[SeededHash.hash(bytes)]
      while let other = found, !bytes.elementsEqual(other.name.bytes) { found = other.next }
      return found
    }
  }
}

/// A header that conditions ask for.
final class HeaderName {
  let name: Name
  /// It was met by that message.
  var step: UInt64 = 0
  /// That it is there.
  var present: HeaderCondition?
  /// That it has a value, by the hash of the value's form.
  var values: SpreadDictionary<UInt64, HeaderCondition> = SpreadDictionary()
  /// Another name that has the same hash.
  var next: HeaderName?

  init(_ name: Name, next: HeaderName?) {
    self.name = name
    self.next = next
  }

  /// This and those that follow, without one of them.
  func without(_ gone: HeaderName) -> HeaderName? {
    if self === gone { return next }
    next = next?.without(gone)
    return self
  }
}

/// Something that bindings ask of a header.
final class HeaderCondition {
  struct Place {
    // Unsafe but sound: a row strikes itself out of its conditions before its binding lets it go.
    unowned(unsafe) let row: HeadersRow
    /// Which of the row's conditions this is.
    let index: Int
  }

  // Unsafe but sound: the index keeps a name as long as it has a condition.
  unowned(unsafe) let name: HeaderName
  let form: [UInt8]
  let hash: UInt64
  /// It held for that message.
  var step: UInt64 = 0
  /// Those that are looked at when it holds.
  var rows: [Place] = []
  /// Bindings that have it.
  var users = 0
  /// Another condition whose form has the same hash.
  var next: HeaderCondition?

  init(_ name: HeaderName, form: [UInt8], hash: UInt64) {
    self.name = name
    self.form = form
    self.hash = hash
  }

  func without(_ gone: HeaderCondition) -> HeaderCondition? {
    if self === gone { return next }
    next = next?.without(gone)
    return self
  }
}

/// A binding in the index.
final class HeadersRow {
  // Unsafe but sound: the binding keeps its row.
  unowned(unsafe) let binding: Binding
  var requiresAll = false
  /// It asks for nothing.
  var isAlways = false
  var conditions: [HeaderCondition] = []
  /// Where it stands among each condition's rows; -1 where it does not.
  var places: [Int] = []
  /// It was matched by that message.
  private var step: UInt64 = 0

  init(_ binding: Binding) { self.binding = binding }

  /// About what it takes of memory with its conditions, of which most are nobody else's.
  var bytes: Int { 170 + 240 * conditions.count }

  func enlist(_ index: Int) {
    places[index] = conditions[index].rows.count
    conditions[index].rows.append(HeaderCondition.Place(row: self, index: index))
  }

  func strike(_ index: Int) {
    let condition = conditions[index]
    let place = places[index]
    guard place >= 0 else { return }
    let last = condition.rows.removeLast()
    if place < condition.rows.count {
      condition.rows[place] = last
      last.row.places[last.index] = place
    }
    condition.rows.shrinkIfSparse()
  }

  /// One of its conditions holds. Returns whether the walk goes on.
  func look(at step: UInt64, _ message: FilteredMessage, _ walk: inout RouteWalk) -> Bool {
    guard self.step != step else { return walk.step() }
    self.step = step
    if requiresAll, !Sabotage.is(.looksAtOneHeader) {
      for (index, condition) in conditions.enumerated() where condition.step != step {
        return walk.step(1 + index / 4)
      }
    }
    return walk.add(binding, for: message)
  }
}
