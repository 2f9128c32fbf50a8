"""Field tables: typed values on the wire of AMQP 0-9-1, as RabbitMQ reads them (amqp.md, 1.0).

A string is a `str` made of UTF-8 with `surrogateescape`, so that any bytes survive both ways.
A table is a list of (key, Value), because order and duplicates count.
"""

import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Value:
    """One value with its wire type letter. `F` holds a table, `A` a list of values."""

    type: str
    content: Any


class Malformed(Exception):
    """Bytes from the broker that do not follow the grammar."""


# Fixed-size types and their struct formats. `l` and `L` are both 64 bits; brokers send `l`.
FIXED = {
    "I": ">i", "i": ">I", "l": ">q", "L": ">q", "s": ">h", "u": ">H", "b": ">b", "B": ">B",
    "d": ">d", "f": ">f", "T": ">Q",
}


def to_bytes(text):
    return text.encode("utf-8", "surrogateescape")


def to_text(data):
    return bytes(data).decode("utf-8", "surrogateescape")


class Reader:
    """Reads primitives from a payload, in order; running past the end is an error."""

    def __init__(self, data):
        self.data = data
        self.offset = 0

    @property
    def remaining(self):
        return len(self.data) - self.offset

    def take(self, count):
        if count > self.remaining:
            raise Malformed(f"{count} bytes wanted, {self.remaining} left")
        start = self.offset
        self.offset += count
        return self.data[start:self.offset]

    def number(self, format):
        return struct.unpack(format, self.take(struct.calcsize(format)))[0]

    def shortstr(self):
        return to_text(self.take(self.number(">B")))

    def longstr(self):
        return to_text(self.take(self.number(">I")))

    def table(self):
        inner = Reader(self.take(self.number(">I")))
        entries = []
        while inner.remaining:
            key = inner.shortstr()
            entries.append((key, inner.value()))
        return entries

    def array(self):
        inner = Reader(self.take(self.number(">I")))
        values = []
        while inner.remaining:
            values.append(inner.value())
        return values

    def value(self):
        type = chr(self.number(">B"))
        if type in FIXED:
            return Value(type, self.number(FIXED[type]))
        if type == "S" or type == "x":
            return Value(type, self.longstr())
        if type == "t":
            return Value(type, self.number(">B") != 0)
        if type == "D":
            return Value(type, (self.number(">B"), self.number(">I")))
        if type == "F":
            return Value(type, self.table())
        if type == "A":
            return Value(type, self.array())
        if type == "V":
            return Value(type, None)
        raise Malformed(f"field of unknown type {type!r}")


def shortstr(text):
    data = to_bytes(text)
    if len(data) > 255:
        raise ValueError(f"a short string of {len(data)} bytes")
    return bytes([len(data)]) + data


def longstr(text):
    data = to_bytes(text)
    return struct.pack(">I", len(data)) + data


def entries(table):
    """The entries of a table without the length in front (what AMQPLAIN sends)."""
    return b"".join(shortstr(key) + value_bytes(value) for key, value in table)


def table_bytes(table):
    data = entries(table)
    return struct.pack(">I", len(data)) + data


def value_bytes(value):
    letter = value.type.encode()
    content = value.content
    if value.type in FIXED:
        return letter + struct.pack(FIXED[value.type], content)
    if value.type in "Sx":
        return letter + longstr(content)
    if value.type == "t":
        return letter + bytes([content])
    if value.type == "D":
        return letter + struct.pack(">BI", *content)
    if value.type == "F":
        return letter + table_bytes(content)
    if value.type == "A":
        data = b"".join(value_bytes(element) for element in content)
        return letter + struct.pack(">I", len(data)) + data
    if value.type == "V":
        return letter
    raise ValueError(f"no field type {value.type!r}")
