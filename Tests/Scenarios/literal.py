"""Literals: how strings, numbers and tables are written in a scenario, and printed in a trace.

    orders  "two words"  "\\x00raw"  "ab"*500  17  true  void  l:17  {key=value, other=[1, "2"]}

A letter and a colon give the wire type of a table's value. Without them a number is `I` (or `l`
when it is large), `true` and `false` are `t`, `void` is `V`, braces are `F`, brackets are `A`, all
the rest is `S`.
"""

import re

from table import FIXED, Value, to_bytes, to_text

BARE = re.compile(r"[^\s\"{}\[\],=]+")
TYPED = re.compile(r"([A-Za-z]):")
INTEGER = re.compile(r"-?[0-9]{1,19}\Z")
ESCAPE = re.compile(rb'\\(x[0-9a-fA-F]{2}|.)', re.DOTALL)
SIMPLE_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0"}


class Quoted(str):
    """A string that was written between quotes, so that it is never read as a number or a word."""


class BadLiteral(Exception):
    pass


class Scanner:
    """Reads literals from one line."""

    def __init__(self, line):
        self.line = line
        self.at = 0

    def skip(self):
        while self.at < len(self.line) and self.line[self.at].isspace():
            self.at += 1

    @property
    def done(self):
        self.skip()
        return self.at >= len(self.line)

    def peek(self):
        return self.line[self.at] if self.at < len(self.line) else ""

    def accept(self, text):
        if self.line.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def fail(self, wanted):
        raise BadLiteral(f"{wanted} expected at {self.line[self.at:]!r}")

    def word(self):
        match = BARE.match(self.line, self.at)
        if not match:
            self.fail("a word")
        self.at = match.end()
        return match.group()

    def string(self):
        """A quoted string with its repetition, or a bare word."""
        if self.peek() != '"':
            return self.word()
        end = self.at + 1
        while end < len(self.line) and self.line[end] != '"':
            end += 2 if self.line[end] == "\\" else 1
        if end >= len(self.line):
            self.fail("a closing quote")
        text = unescape(self.line[self.at + 1:end])
        self.at = end + 1
        if self.accept("*"):
            text = text * int(self.word())
        return Quoted(text)

    def value(self):
        """A table's value."""
        typed = TYPED.match(self.line, self.at)
        if typed:
            self.at = typed.end()
            return typed_value(typed.group(1), self)
        if self.peek() == "{":
            return Value("F", self.table())
        if self.peek() == "[":
            return Value("A", self.array())
        return guess(self.string())

    def table(self):
        entries = []
        for _ in self.elements("{", "}"):
            key = str(self.string())
            if not self.accept("="):
                self.fail("=")
            entries.append((key, self.value()))
        return entries

    def array(self):
        return [self.value() for _ in self.elements("[", "]")]

    def elements(self, opening, closing):
        if not self.accept(opening):
            self.fail(opening)
        self.skip()
        while not self.accept(closing):
            yield
            self.skip()
            self.accept(",")
            self.skip()


def unescape(text):
    def replace(match):
        code = match.group(1)
        if code[:1] == b"x" and len(code) == 3:
            return bytes([int(code[1:], 16)])
        return SIMPLE_ESCAPES.get(code, code)
    return to_text(ESCAPE.sub(replace, to_bytes(text)))


def guess(text):
    if isinstance(text, Quoted):
        return Value("S", str(text))
    if INTEGER.match(text):
        number = int(text)
        return Value("I" if -2**31 <= number < 2**31 else "l", number)
    if text in ("true", "false"):
        return Value("t", text == "true")
    if text == "void":
        return Value("V", None)
    return Value("S", text)


def typed_value(type, scanner):
    if type == "F":
        return Value(type, scanner.table())
    if type == "A":
        return Value(type, scanner.array())
    if type == "V":
        return Value(type, None)
    text = str(scanner.string())
    if type in "df":
        return Value(type, float(text))
    if type in FIXED:
        return Value(type, int(text))
    if type == "t":
        return Value(type, text == "true")
    if type == "D":
        scale, number = text.split("/")
        return Value(type, (int(scale), int(number)))
    return Value(type, text)


def print_string(text, plain=BARE):
    """A string as it would be written: bare where that is unambiguous, long repetitions folded."""
    if plain.fullmatch(text) and text.isprintable() and "\\" not in text and len(text) <= 64:
        return text
    if len(text) > 64:
        for period in range(1, 17):
            count, rest = divmod(len(text), period)
            if not rest and text == text[:period] * count:
                return f"{quote(text[:period])}*{count}"
    return quote(text)


def quote(text):
    out = []
    for character in text:
        code = ord(character)
        if character in '"\\':
            out.append("\\" + character)
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif character.isprintable():
            out.append(character)
        else:
            out += [f"\\x{byte:02x}" for byte in to_bytes(character)]
    return '"' + "".join(out) + '"'


def print_value(value):
    content = value.content
    if value.type == "S":
        ambiguous = guess(content).type != "S" or TYPED.match(content)
        return quote(content) if ambiguous else print_string(content)
    if value.type == "I":
        return str(content)
    if value.type == "t":
        return "true" if content else "false"
    if value.type == "V":
        return "void"
    if value.type == "F":
        return print_table(content)
    if value.type == "A":
        return "[" + ", ".join(print_value(element) for element in content) + "]"
    if value.type == "D":
        return f"D:{content[0]}/{content[1]}"
    if value.type == "x":
        return "x:" + print_string(content)
    return f"{value.type}:{content}"


def print_table(table):
    return "{" + ", ".join(f"{print_string(k)}={print_value(v)}" for k, v in table) + "}"
