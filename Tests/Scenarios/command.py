"""A command of a scenario, parsed: where it goes, what it does, with which words."""

import re

from content import PROPERTIES
from literal import BadLiteral, Scanner
from methods import METHODS
from table import to_bytes

TARGET = re.compile(r"([a-z][a-z0-9]*)(?:\.([0-9]+))?\Z")
GLOBAL = {"open", "wait", "restart", "kill"}
CONNECT_OPTIONS = {name: "longstr" for name in (
    "user", "password", "vhost", "mechanism", "response", "channel-max", "frame-max", "heartbeat",
)} | {"client-properties": "table"}
HEX = re.compile(r"(?:[0-9a-fA-F]{2})+\Z")


class Command:
    """`verb` is a word of the runner's or a method's name; the scanner stands behind it."""

    def __init__(self, line):
        self.text = line
        scanner = self.scanner = Scanner(line)
        scanner.skip()
        # `+`: follows the command before without waiting for what that one makes the broker send.
        self.joined = scanner.accept("+ ")
        self.eventually = scanner.accept("eventually ")
        # `ordered`: what it makes the broker send stands in the trace as it came.
        self.ordered = scanner.accept("ordered ")
        # `given`: the plain answer is not traced; anything else is.
        self.given = scanner.accept("given ")
        self.times = 1
        if scanner.accept("repeat "):
            scanner.skip()
            self.times = int(scanner.word())
        self.connection, self.channel, self.verb = None, 0, self.next_word()
        if self.verb in GLOBAL:
            return
        target = TARGET.match(self.verb)
        if not target:
            raise BadLiteral(f"neither a command nor a connection: {self.verb!r}")
        self.connection, self.channel = target.group(1), int(target.group(2) or 0)
        self.verb = self.next_word()

    def next_word(self):
        self.scanner.skip()
        return self.scanner.word()

    def copies(self):
        """The command as often as it is to be done, `$i` replaced by 1, 2, 3..."""
        if self.times == 1:
            return [self]
        rest = re.sub(r"\A\s*(\+ )?repeat\s+\S+", "", self.text)
        return [Command(re.sub(r"\$i\b", str(number), rest)) for number in range(1, self.times + 1)]

    def words(self):
        """The rest as plain words."""
        words = []
        while not self.scanner.done:
            words.append(self.scanner.word())
        return words

    def arguments(self, types):
        """The rest as name=value pairs; a bit's name alone sets it."""
        found = {}
        while not self.scanner.done:
            name = self.scanner.word()
            if name not in types:
                raise BadLiteral(f"{self.verb} has no {name!r}")
            found[name] = self.argument(types[name])
        return found

    def argument(self, type):
        scanner = self.scanner
        if not scanner.accept("="):
            if type != "bit":
                scanner.fail("=")
            return True
        if type == "table":
            return scanner.table()
        if type in ("shortstr", "longstr"):
            return str(scanner.string())
        word = scanner.word()
        return word == "true" if type == "bit" else int(word)

    def method_arguments(self, method, extra=None):
        return self.arguments(dict(METHODS.by_name[method].fields) | (extra or {}))

    def publish_arguments(self):
        """(method's arguments, properties, body, size of the body's frames or None)."""
        extra = PROPERTIES | {"body": "longstr", "split": "long"}
        found = self.method_arguments("basic.publish", extra)
        properties = {name: found.pop(name) for name in PROPERTIES if name in found}
        body = to_bytes(found.pop("body", ""))
        return found, properties, body, found.pop("split", None)

    def octets(self):
        """The rest as bytes: words of hexadecimal digits and quoted strings, joined."""
        data = b""
        while not self.scanner.done:
            quoted = self.scanner.peek() == '"'
            text = self.scanner.string()
            if not quoted and not HEX.match(text):
                raise BadLiteral(f"not hexadecimal: {text!r}")
            data += to_bytes(text) if quoted else bytes.fromhex(text)
        return data


def declared_names(lines):
    """The names of all queues and exchanges that these commands declare."""
    names = set()
    for line in lines:
        for copy in Command(line).copies():
            if copy.verb in ("queue.declare", "exchange.declare"):
                arguments = copy.method_arguments(copy.verb)
                names.add(arguments.get("queue") or arguments.get("exchange") or "")
    return names - {""}
