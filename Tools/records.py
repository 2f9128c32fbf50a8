"""Makes the Swift and the page's tables of Specs/Tables/records.txt, whose head explains it; for Tools/generate."""

import re

HEADER_BYTES = 16
NAME_BYTES_MAX = 255
SIZES = {"u16": 2, "u32": 4, "u64": 8}
SWIFT = {"u16": "UInt16", "u32": "UInt32", "u64": "UInt64", "name": "Name", "table": "[UInt8]"}


def camel(name, first_upper=False):
    words = name.split("-")
    text = words[0] + "".join(word.capitalize() for word in words[1:])
    return text[0].upper() + text[1:] if first_upper else text


class Field:
    def __init__(self, name, text, meaning):
        self.name, self.text, self.meaning = name, text, meaning
        match = re.fullmatch(r"(\w+)(?:\(([\w-]+)\))?(?: ([\w-]+))?", text)
        if not match:
            raise SystemExit(f"records.txt: no type: {text}")
        self.type, self.size_of, self.item = match.groups()
        if self.type not in ("u32", "u64", "name", "table", "bytes", "list"):
            raise SystemExit(f"records.txt: no type: {text}")
        self.swift = camel(name)


class Kind:
    def __init__(self, line, owner):
        head, _, self.meaning = (part.strip() for part in line.partition("|"))
        words = head.split()
        self.number, self.name, self.place, self.owner = int(words[0]), words[1], words[2], owner
        self.like = words[4] if len(words) > 3 else None
        self.flags, self.fields = [], []
        self.count = self.word = None
        self.any_size, self.says = False, ""
        self.case, self.type = camel(self.name), camel(self.like or self.name, True) + "Record"

    def take(self, line):
        if line.startswith("says "):
            self.says = line[5:]
            return
        text, _, meaning = (part.strip() for part in line.partition("|"))
        first, _, rest = text.partition(" ")
        if first == "flag":
            self.flags.append((int(rest.split()[0]), rest.split()[1]))
        elif first == "count":
            self.count = (rest, meaning)
        elif first == "word":
            self.word = (rest, meaning)
        elif first == "any-size":
            self.any_size = True
        else:
            self.fields.append(Field(first, rest, meaning))

    @property
    def has_struct(self):
        return not self.like and not self.any_size and (self.fields or self.word)

    @property
    def fixed(self):
        """The fields in front that have fixed places, with these."""
        offset, found = HEADER_BYTES, []
        for field in self.fields:
            if field.type not in SIZES:
                break
            found.append((field, offset))
            offset += SIZES[field.type]
        return found

    @property
    def fixed_bytes(self):
        return sum(SIZES[field.type] for field, _ in self.fixed)

    def rest(self):
        return self.fields[len(self.fixed):]

    @property
    def bits(self):
        return sum(bit for bit, _ in self.flags)


class Table:
    def __init__(self, lines):
        self.items, self.kinds, owner = {}, [], None
        for line in lines:
            words = line.split()
            if line.startswith(" "):
                self.kinds[-1].take(line.strip())
            elif words[0] == "item":
                self.items[words[1]] = [tuple(word.split(":")) for word in words[2:]]
            elif words[0] == "owner":
                owner = words[1]
            else:
                self.kinds.append(Kind(line, owner))
        by_name = {kind.name: kind for kind in self.kinds}
        for kind in self.kinds:
            if (kind.number < HEADER_BYTES) != (kind.owner == "journal"):
                raise SystemExit(f"records.txt: {kind.name} has a number of the other owner")
            if kind.like:
                model = by_name[kind.like]
                kind.flags, kind.fields = model.flags, model.fields
                kind.count, kind.word = model.count, model.word
        if len({kind.number for kind in self.kinds}) < len(self.kinds):
            raise SystemExit("records.txt: a number stands there twice")

    def of(self, owner):
        return [kind for kind in self.kinds if kind.owner == owner]

    def item_bytes(self, item):
        return sum(SIZES[type_] for _, type_ in self.items[item])


# The Swift


def number_of(kind, name):
    """How many a bytes or a list has, as an expression of `record`."""
    if kind.word and kind.word[0] == name:
        return "Int(record.word)"
    if kind.count and kind.count[0] == name:
        return "Int(record.count)"
    offset = next(offset for field, offset in kind.fixed if field.name == name)
    return f"Int(record.u32(at: {offset}))"


def has_own_place(field):
    return field.type in ("name", "bytes", "list", "table")


def struct(table, kind):
    access = "package "
    out = [f"/// Record {kind.number}, {kind.name}. {kind.meaning}."]
    out += [f"{access}struct {kind.type} {{", f"  {access}let record: RecordView"]
    places = [field for field in kind.rest() if has_own_place(field)]
    # The first of them has a fixed place.
    stored = [field for field in places if field.type != "table"][1:]
    for field in places:
        if field.type == "table":
            out.append(f"  {access}let {field.swift}: FieldTable")
        elif field in stored:
            out.append(f"  private let {field.swift}Offset: Int")
    out += checks(table, kind, places, stored)
    for bit, name in kind.flags:
        out.append(f"  {access}static let {camel(name)}Flag: UInt8 = {bit}")
        out.append(f"  {access}var {camel('is-' + name)}: Bool {{ record.flags & Self.{camel(name)}Flag != 0 }}")
    if kind.word:
        out.append(f"  {access}var {camel(kind.word[0])}: UInt32 {{ record.word }}")
    for field, offset in kind.fixed:
        out.append(f"  static let {field.swift}Offset = {offset}")
    for field, offset in kind.fixed:
        out.append(f"  {access}var {field.swift}: {SWIFT[field.type]} {{ record.{field.type}(at: {offset}) }}")
    for field in places:
        out += reading(table, kind, field, field in stored, access)
    out += writing(table, kind) + ["}", ""]
    return out


def checks(table, kind, places, stored):
    """The initialiser, which looks at every length before it is used."""
    access = "package "
    out = ["", f"  /// Throws when the payload is not that of kind {kind.number}.", f"  {access}init(_ record: RecordView) throws(MalformedInput) {{", "    self.record = record"]
    body = []
    if kind.fixed_bytes:
        body.append(f"try walk.skip({kind.fixed_bytes})")
    for field in places:
        if field in stored:
            body.append(f"{field.swift}Offset = walk.offset")
        if field.type == "name":
            body.append("try walk.skipName()")
        elif field.type == "bytes":
            body.append(f"try walk.skip({number_of(kind, field.size_of)})")
        elif field.type == "table":
            body.append(f"{field.swift} = try walk.fieldTable()")
        elif field.size_of == "rest":
            body.append(f"try walk.skipItems(of: {table.item_bytes(field.item)})")
        else:
            body.append(f"try walk.skip({table.item_bytes(field.item)} &* {number_of(kind, field.size_of)})")
    body.append("try walk.end()")
    keyword = "let" if body == ["try walk.end()"] else "var"
    out += [f"    {keyword} walk = PayloadWalk(record)"] + ["    " + line for line in body] + ["  }", ""]
    return out


def reading(table, kind, field, is_stored, access):
    place = f"{field.swift}Offset" if is_stored else str(HEADER_BYTES + kind.fixed_bytes)
    if field.type == "name":
        return [f"  {access}var {field.swift}: Name {{ record.name(at: {place}) }}"]
    if field.type == "bytes":
        count = number_of(kind, field.size_of)
        return [f"  {access}var {field.swift}: UnsafeRawBufferPointer {{ record.bytes(at: {place}, {count}) }}"]
    if field.type == "table":
        return []
    item = camel(field.item, True)
    count = f"(record.size - {place}) / {item}.size" if field.size_of == "rest" else number_of(kind, field.size_of)
    return [f"  {access}var {field.swift}: RecordList<{item}> {{ RecordList(record.base + {place}, count: {count}) }}"]


def stores(kind):
    return [
        f"    payload.storeBytes(of: {field.swift}, toByteOffset: {offset - HEADER_BYTES}, as: {SWIFT[field.type]}.self)"
        for field, offset in kind.fixed
    ]


def writing(table, kind):
    fixed = [(field.swift, SWIFT[field.type]) for field, _ in kind.fixed]
    word = [(camel(kind.word[0]), "UInt32")] if kind.word else []
    word_argument = f", word: {camel(kind.word[0])}" if kind.word else ""
    if any(field.type == "bytes" for field in kind.fields):
        # Written piece by piece by whoever has the pieces.
        parameters = ", ".join(f"{name}: {type_}" for name, type_ in fixed)
        # Numbers, not sums: a sum that is read in another module's code is looked up at every use.
        return ["", f"  static let fixedBytes = {kind.fixed_bytes}", f"  static let restOffset = {HEADER_BYTES + kind.fixed_bytes}",
                "", "  /// Writes the fields in front.", "  @inline(__always)",
                f"  static func write(at payload: UnsafeMutableRawPointer, {parameters}) {{"] + stores(kind) + ["  }"]
    out = []
    rest = kind.rest()
    is_counted = len(rest) == 1 and rest[0].type == "list" and rest[0].size_of != "rest"
    if kind.place == "log" and (not rest or is_counted):
        out += appending(table, kind, rest, fixed, word, word_argument)
    else:
        out += encoding(kind, rest, fixed, word, word_argument)
    return out


def appending(table, kind, rest, fixed, word, word_argument):
    parameters = ["to journal: Journal"] + [f"{name}: {type_}" for name, type_ in word + fixed]
    size, count, result = str(kind.fixed_bytes), "", ""
    if rest:
        name = camel(kind.count[0])
        parameters.append(f"{name}: Int")
        size = f"{kind.fixed_bytes} &+ {table.item_bytes(rest[0].item)} &* {name}".removeprefix("0 &+ ")
        count = f", count: UInt16({name})"
        result = " -> UnsafeMutableRawPointer"
    out = ["", "  /// Appends a record" + ("; returns the place of its list." if rest else "."), "  @inline(__always)",
           f"  static func append({', '.join(parameters)}){result} {{"]
    target = "let (_, payload)" if kind.fixed or rest else "_"
    out.append(f"    {target} = journal.append(kind: {kind.number}{count}{word_argument}, payloadSize: {size})")
    out += stores(kind)
    if rest:
        out.append("    return payload" + (f" + {kind.fixed_bytes}" if kind.fixed else ""))
    return out + ["  }"]


def encoding(kind, rest, fixed, word, word_argument):
    parameters = word + [(camel("is-" + name), "Bool") for _, name in kind.flags] + fixed
    for field in rest:
        parameters.append((field.swift, f"[{camel(field.item, True)}]" if field.type == "list" else SWIFT[field.type]))
    out = ["", "  /// The record's bytes." + (" A table comes as it is encoded." if any(f.type == "table" for f in rest) else ""),
           "  package static func raw(" + ", ".join(f"{name}: {type_}" for name, type_ in parameters) + ") -> RawRecord {"]
    flags = " | ".join(f"({camel('is-' + name)} ? {bit} : 0)" for bit, name in kind.flags)
    out.append("    var payload: [UInt8] = []")
    for field in kind.fields:
        value = field.swift
        out.append({
            "name": f"    payload.append(UInt8({value}.bytes.count))\n    payload += {value}.bytes",
            "table": f"    payload += {value}",
            "list": f"    for item in {value} {{ item.append(to: &payload) }}",
        }.get(field.type, f"    payload.append(littleEndian: {value})"))
    flags_argument = f", flags: {flags}" if flags else ""
    out.append(f"    return RawRecord(kind: {kind.number}{flags_argument}{word_argument}, payload: payload)")
    return out + ["  }"]


def item_struct(table, name):
    fields, type_name = table.items[name], camel(name, True)
    out = [f"/// What a list of {name} holds.", f"package struct {type_name}: RecordItem, Equatable {{"]
    out.append(f"  package static let size = {table.item_bytes(name)}")
    out += [f"  package let {field}: {SWIFT[type_]}" for field, type_ in fields]
    out += ["", "  @inline(__always)", "  package init(" + ", ".join(f"{f}: {SWIFT[t]}" for f, t in fields) + ") {"]
    out += [f"    self.{field} = {field}" for field, _ in fields] + ["  }", ""]
    out += ["  @inline(__always)", "  package init(at place: UnsafeRawPointer) {"]
    offset, writes = 0, []
    for field, type_ in fields:
        out.append(f"    {field} = place.loadUnaligned(fromByteOffset: {offset}, as: {SWIFT[type_]}.self)")
        writes.append(f"    place.storeBytes(of: {field}, toByteOffset: {offset}, as: {SWIFT[type_]}.self)")
        offset += SIZES[type_]
    out += ["  }", "", "  @inline(__always)", "  func write(at place: UnsafeMutableRawPointer) {"] + writes + ["  }", ""]
    out += ["  func append(to bytes: inout [UInt8]) {"]
    out += [f"    bytes.append(littleEndian: {field})" for field, _ in fields]
    return out + ["  }", "}", ""]


def says(kind):
    def one(match):
        name, mark, rest = re.fullmatch(r"([\w-]+)([|#?]?)(.*)", match[1]).groups()
        if mark == "?":
            yes, no = rest.split(":")
            return f'\\(fields.{camel("is-" + name)} ? "{yes}" : "{no}")'
        if mark == "#":
            return f"\\(fields.{camel(name)}.count)"
        if mark == "|":
            return f'\\(fields.{camel(name)}.text(behind: "{rest}"))'
        return f"\\(fields.{camel(name)})"

    text = kind.says.replace('"', '\\"')
    return re.sub(r"{([^}]*)}", one, text)


def records(table, owner):
    is_own = owner == "journal"
    access = "package "
    name = "OwnRecord" if is_own else "BrokerRecord"
    kinds = table.of(owner)
    out = ["import Base", ""] if is_own else ["import AMQP", "import Base", "import Journal", ""]
    out += [f"/// A record of the {owner}, whose form was looked at.", f"{access}enum {name} {{"]
    out += [f"  {access}enum Kind: UInt8, CaseIterable, Sendable {{"]
    out += [f"    case {kind.case} = {kind.number}" for kind in kinds]
    out += ["", f"    {access}var name: String {{", "      switch self {"]
    out += [f'      case .{kind.case}: "{kind.name}"' for kind in kinds] + ["      }", "    }", ""]
    out += ["    /// The flags that there are.", "    var flags: UInt8 {", "      switch self {"]
    flagged = [kind for kind in kinds if kind.flags]
    out += [f"      case .{kind.case}: {kind.bits}" for kind in flagged]
    out += ["      case " + ", ".join(f".{kind.case}" for kind in kinds if not kind.flags) + ": 0", "      }", "    }", ""]
    out += plausible(table, kinds) + ["  }", ""]
    structs = [kind for kind in kinds if not kind.any_size and (kind.fields or kind.word)]
    for kind in kinds:
        out.append(f"  case {kind.case}({kind.type})" if kind in structs else f"  case {kind.case}")
    if not is_own:
        out += ["  /// Of a kind that nobody here knows and that may be passed over.", "  case ignorable"]
    out += ["", f"  {access}init(_ record: RecordView) throws(RecordProblem) {{",
            "    guard let kind = Kind(rawValue: record.kind) else {"]
    if not is_own:
        out += ["      if record.isIgnorable {", "        self = .ignorable", "        return", "      }"]
    out += ["      throw .unknownKind(record.kind)", "    }"]
    out += ["    guard record.size == 8 || record.flags & ~kind.flags == 0 else {",
            "      throw .unknownFlags(record.flags, kind: record.kind)", "    }"]
    out += ["    do throws(MalformedInput) {", "      switch kind {"]
    for kind in kinds:
        if kind in structs:
            out.append(f"      case .{kind.case}: self = .{kind.case}(try {kind.type}(record))")
        elif kind.any_size:
            out.append(f"      case .{kind.case}: self = .{kind.case}")
        else:
            out += [f"      case .{kind.case}:", "        try PayloadWalk(record).end()", f"        self = .{kind.case}"]
    out += ["      }", "    } catch {", "      throw .malformed(kind: record.kind, error.reason)", "    }", "  }", ""]
    out += ["  /// What it says, for people who look into a journal.", f"  {access}var text: String {{", "    switch self {"]
    for kind in kinds:
        binding = "(let fields)" if kind in structs and "{" in kind.says else ""
        out.append(f'    case .{kind.case}{binding}: "{says(kind)}"')
    if not is_own:
        out.append('    case .ignorable: "a record that a newer version wrote, and that may be passed over"')
    out += ["    }", "  }", "}", ""]
    if not is_own:
        for item in table.items:
            out += item_struct(table, item)
    for kind in kinds:
        if kind.has_struct:
            out += struct(table, kind)
    return "\n".join(out)


def plausible(table, kinds):
    """Which sizes go with a header and the fields in front; the rest need not be there."""
    out = ["    /// Whether it stands in the log, and not in checkpoints alone.", "    package var isInLog: Bool {", "      switch self {"]
    for truth in ("true", "false"):
        cases = [f".{kind.case}" for kind in kinds if (kind.place == "checkpoint") == (truth == "false")]
        out.append("      case " + ", ".join(cases) + f": {truth}")
    out += ["      }", "    }", "", "    /// Whether a record's size goes with its header and the bytes up to 32, which are there.",
            "    package func isPlausible(_ record: RecordView) -> Bool {", "      switch self {"]
    for kind in kinds:
        out += [f"      case .{kind.case}:", f"        {plausible_size(table, kind)}"]
    return out + ["      }", "    }"]


def plausible_size(table, kind):
    if kind.any_size:
        return "true"
    fields = kind.fields
    least = HEADER_BYTES + sum(SIZES[field.type] for field in fields if field.type in SIZES)
    is_open = any(field.size_of == "rest" for field in fields)
    is_table = any(field.type == "table" for field in fields)
    names = sum(field.type == "name" for field in fields)
    shortest = least + names + 4 * is_table
    if is_open:
        return f"record.size >= {shortest}"
    if is_table:
        return f"({shortest}..<Record.catalogSizeMax).contains(record.size)"
    terms = [str(shortest)]
    for field in fields:
        if field.type in ("bytes", "list"):
            factor = f"{table.item_bytes(field.item)} * " if field.item else ""
            terms.append(factor + number_of(kind, field.size_of))
    if names:
        return (f"record.size >= {least}\n          && "
                f"(0...{names * NAME_BYTES_MAX}).contains(record.size - ({' + '.join(terms)}))")
    return f"record.size == {' + '.join(terms)}"


# The page


def page(table, text):
    """The page with its tables as records.txt has them, each between its markers."""
    groups = {
        "journal": table.of("journal"),
        "broker": [kind for kind in table.of("broker") if kind.place != "checkpoint"],
        "checkpoint": [kind for kind in table.of("broker") if kind.place == "checkpoint"],
    }
    for name, kinds in groups.items():
        rows = "\n".join(row(table, kind) for kind in kinds)
        begin, end = f"<!-- records: {name}; from Tables/records.txt, do not edit -->\n", "<!-- end -->"
        if begin not in text:
            raise SystemExit(f"Specs/Journal.md: no place for the table of {name}")
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        heading = "| kind | name | flags, count, word | payload | meaning |\n|---|---|---|---|---|\n"
        text = f"{head}{begin}{heading}{rows}\n{end}{tail}"
    return text


def row(table, kind):
    header = [f"flag {bit}: {name}" for bit, name in kind.flags]
    for place, value in (("count", kind.count), ("word", kind.word)):
        if value:
            header.append(f"{place}: {words(value[0])}" + (f" ({value[1]})" if value[1] else ""))
    payload = []
    for field in kind.fields:
        if field.type == "list":
            each = ", ".join(f"{type_} {name}" for name, type_ in table.items[field.item])
            payload.append(f"for each of the {words(field.name)} {each}")
        else:
            kind_of = "" if field.type == "bytes" else field.type + " "
            payload.append(f"{kind_of}{words(field.name)}" + (f" ({field.meaning})" if field.meaning else ""))
    if kind.like:
        payload = [f"as {kind.like}"]
    return f"| {kind.number} | {words(kind.name)} | {'; '.join(header)} | {'; '.join(payload)} | {kind.meaning} |"


def words(name):
    return name.replace("-", " ")
