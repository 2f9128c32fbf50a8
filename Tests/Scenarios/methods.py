"""The methods of AMQP, read from `Specs/Tables/methods.txt`, with their encoding."""

import struct
from dataclasses import dataclass
from pathlib import Path

from table import Reader, longstr, shortstr, table_bytes

SOURCE = Path(__file__).resolve().parents[2] / "Specs" / "Tables" / "methods.txt"

NUMBERS = {"octet": ">B", "short": ">H", "long": ">I", "longlong": ">Q"}


@dataclass(frozen=True)
class Method:
    """One line of the table: `fields` is a list of (name, type) in wire order."""

    name: str
    class_id: int
    method_id: int
    sender: str
    has_content: bool
    fields: tuple

    def default(self, type):
        if type in NUMBERS:
            return 0
        return {"bit": False, "table": []}.get(type, "")

    def encode(self, arguments):
        """The payload of a method frame. Missing arguments are zero; adjacent bits share octets."""
        out = bytearray(struct.pack(">HH", self.class_id, self.method_id))
        bits = 0
        for name, type in self.fields:
            value = arguments.get(name, self.default(type))
            if type == "bit":
                if bits % 8 == 0:
                    out.append(0)
                out[-1] |= bool(value) << (bits % 8)
                bits += 1
                continue
            bits = 0
            out += encode_field(type, value)
        return bytes(out)

    def decode(self, reader):
        arguments = {}
        bits = 0
        octet = 0
        for name, type in self.fields:
            if type == "bit":
                if bits % 8 == 0:
                    octet = reader.number(">B")
                arguments[name] = bool(octet >> (bits % 8) & 1)
                bits += 1
                continue
            bits = 0
            arguments[name] = decode_field(type, reader)
        return arguments


def encode_field(type, value):
    if type in NUMBERS:
        return struct.pack(NUMBERS[type], value)
    return {"shortstr": shortstr, "longstr": longstr, "table": table_bytes}[type](value)


def decode_field(type, reader):
    if type in NUMBERS:
        return reader.number(NUMBERS[type])
    return getattr(reader, type)()


class MethodTable:
    """All methods, by name and by their two numbers."""

    def __init__(self, path=SOURCE):
        self.by_name = {}
        self.by_id = {}
        for line in path.read_text().splitlines():
            line = line.split("#")[0].strip()
            if line:
                self.add(line)

    def add(self, line):
        head, fields = line.split(":")
        name, number, sender, *flags = head.split()
        class_id, method_id = map(int, number.split("."))
        pairs = tuple(tuple(field.split()) for field in fields.split(",") if field.strip())
        method = Method(name, class_id, method_id, sender, "content" in flags, pairs)
        self.by_name[name] = method
        self.by_id[class_id, method_id] = method

    def replies(self, name, arguments):
        """The names of the methods that may answer a client's request, none if it has no answer."""
        if arguments.get("no-wait"):
            return frozenset()
        special = {
            "connection.start-ok": {"connection.tune", "connection.secure"},
            "connection.secure-ok": {"connection.tune", "connection.secure"},
            "basic.get": {"basic.get-ok", "basic.get-empty"},
        }
        if name in special:
            return frozenset(special[name])
        reply = self.by_name.get(name + "-ok")
        answered = reply is not None and reply.sender != "client" and not name.endswith("-ok")
        return frozenset({reply.name}) if answered else frozenset()

    def name(self, class_id, method_id):
        method = self.by_id.get((class_id, method_id))
        return method.name if method else f"{class_id}.{method_id}"


METHODS = MethodTable()
