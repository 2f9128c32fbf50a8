"""Names: how a scenario's names become private to a run, and the broker's own names become stable.

Every queue and exchange that a scenario declares gets a suffix on the wire wherever a whole string
equals its name; the suffix disappears again from whatever comes back. So scenarios share a broker,
also with themselves. What the broker generates is shown as $gen1, $ctag1 and $reply1, numbered as
it first came.
"""

import re
import secrets

from table import Value

GENERATED = {
    "gen": re.compile(r"amq\.gen-[A-Za-z0-9_-]+"),
    "ctag": re.compile(r"amq\.ctag-[A-Za-z0-9_-]+"),
    "reply": re.compile(r"amq\.rabbitmq\.reply-to\.[^\s'\"]+"),
}
ALIAS = re.compile(r"\$(?:gen|ctag|reply)[0-9]+")
# A longer name keeps its bytes: with the suffix it, or a reply that quotes it, might not fit.
PRIVATE_BYTES_MAX = 64


class Names:
    def __init__(self, declared, text=""):
        """`text` is the scenario's: a name of the broker's kind that it spells out is kept."""
        self.text = text
        self.suffix = "~" + secrets.token_hex(3)
        self.private = {name for name in declared if self.may_be_private(name)}
        self.aliases = {}

    @staticmethod
    def may_be_private(name):
        return name and not name.startswith("amq.") and "$" not in name and \
            len(name.encode("utf-8", "surrogateescape")) <= PRIVATE_BYTES_MAX

    # Towards the broker.

    def outward(self, text):
        if text in self.private:
            return text + self.suffix
        actual = {alias: name for name, alias in self.aliases.items()}
        return ALIAS.sub(lambda match: actual.get(match.group(), match.group()), text)

    def outward_value(self, value):
        if isinstance(value, str):
            return self.outward(value)
        if isinstance(value, list):
            return [(key, self.outward_value(inner)) for key, inner in value]
        if not isinstance(value, Value):
            return value
        if value.type == "S":
            return Value("S", self.outward(value.content))
        if value.type == "F":
            return Value("F", self.outward_value(value.content))
        if value.type == "A":
            return Value("A", [self.outward_value(inner) for inner in value.content])
        return value

    # From the broker.

    def inward(self, text):
        text = text.replace(self.suffix, "")
        for kind, pattern in GENERATED.items():
            text = pattern.sub(lambda match: self.alias(kind, match.group()), text)
        return text

    def alias(self, kind, name):
        if name in self.text:
            return name
        if name not in self.aliases:
            number = sum(alias.startswith("$" + kind) for alias in self.aliases.values()) + 1
            self.aliases[name] = f"${kind}{number}"
        return self.aliases[name]

    def inward_value(self, value):
        if isinstance(value, str):
            return self.inward(value)
        if isinstance(value, list):
            return [(key, self.inward_value(inner)) for key, inner in value]
        if not isinstance(value, Value):
            return value
        if value.type == "S":
            return Value("S", self.inward(value.content))
        if value.type == "F":
            return Value("F", self.inward_value(value.content))
        if value.type == "A":
            return Value("A", [self.inward_value(inner) for inner in value.content])
        return value
