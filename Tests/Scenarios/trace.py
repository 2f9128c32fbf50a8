"""The trace: events put into an order that the protocol promises, and printed one to a line.

Connections are sorted by name, the channels of a connection by number, connection-level lines last.
Within a channel, in this order, each part as it arrived:
  1. replies, and deliveries by basic.get;
  2. basic.return, then the set of tags that confirms newly settle, then those refused;
  3. per consumer tag (sorted): consume-ok, deliveries, cancels;
  4. channel.close.
Delivery tags are shown as they would be if the broker had delivered in this order. Where the order
is a promise (`ordered`), each channel's lines stay as they came, and its confirms are where the last
of them came.
"""

import re
from dataclasses import replace

from content import PROPERTIES
from literal import print_string, print_table
from methods import METHODS
from table import Value, to_text

CONSUMER = {"basic.consume-ok", "basic.deliver", "basic.cancel", "basic.cancel-ok"}
TAGGED = {"basic.deliver", "basic.get-ok"}
PLAIN = re.compile(r"[^\s\"=]+")
CONNECTION_LEVEL = 1 << 16


class Trace:
    """What came since the last command, and how it is shown."""

    def __init__(self, names):
        self.names = names
        self.events = []
        # The lines of each channel stay as they came, until the command's end.
        self.ordered = False

    def lines(self):
        events = self.arranged()
        shown = {id(event): tag for event, tag in numbered(events)}
        return [self.line(event, shown.get(id(event))) for event in events]

    def commit(self):
        """Ends the command: later ones refer to its deliveries by the tags that were shown."""
        for event, tag in numbered(self.arranged()):
            event.deliveries.shown[tag] = event.arguments["delivery-tag"]
            event.deliveries.next_shown = tag + 1
        self.events = []
        self.ordered = False

    def arranged(self):
        return sorted(merge_confirms(self.events), key=self.place if self.ordered else self.rank)

    def place(self, event):
        return event.connection, event.channel or CONNECTION_LEVEL

    def rank(self, event):
        """Sorting is stable, so that what has the same rank stays as it arrived."""
        part, tag = 0, ""
        if event.name in CONSUMER:
            part, tag = 3, natural(self.names.inward(event.arguments["consumer-tag"]))
        elif event.name == "basic.return":
            part = 1
        elif event.kind == "confirm":
            part, tag = 2, event.name
        elif event.name in ("channel.close", "connection.close"):
            part = 4
        elif event.kind == "closed":
            part = 5
        return event.connection, event.channel or CONNECTION_LEVEL, part, tag

    # Printing.

    def line(self, event, tag):
        place = event.connection + (f".{event.channel}" if event.channel else "")
        if event.kind == "anomaly":
            return f"{place} !! {event.text}"
        return f"{place} <- {self.told(event, tag)}"

    def told(self, event, tag):
        if event.kind == "closed":
            return "socket closed"
        if event.kind == "version":
            return f"protocol header {event.text}"
        if event.kind == "heartbeat":
            return "heartbeat"
        if event.kind == "confirm":
            return f"{event.name} {ranges(event.tags)}"
        if event.name == "connection.start":
            return start(event.arguments)
        words = [event.name]
        fields = METHODS.by_name[event.name].fields
        words += self.fields(fields, event.arguments | ({"delivery-tag": tag} if tag else {}))
        if event.body is not None:
            words += self.fields(PROPERTIES.items(), event.properties)
            words.append("body=" + print_string(to_text(event.body), PLAIN))
        return " ".join(words)

    def fields(self, fields, values):
        for name, type in fields:
            if name not in values or name.startswith("reserved") or name == "method-id":
                continue
            value = self.names.inward_value(values[name])
            if name == "class-id":
                if value or values["method-id"]:
                    yield "cause=" + METHODS.name(value, values["method-id"])
            elif type == "bit":
                if value:
                    yield name
            elif type == "table":
                yield f"{name}={print_table(value)}"
            elif isinstance(value, str):
                yield f"{name}={print_string(value, PLAIN)}"
            else:
                yield f"{name}={value}"


def start(arguments):
    """connection.start with what differs between brokers and releases left out, the rest sorted."""
    properties = arguments["server-properties"]
    capabilities = dict(properties).get("capabilities", Value("F", [])).content
    mechanisms = " ".join(sorted(arguments["mechanisms"].split()))
    return " ".join([
        "connection.start version={version-major}.{version-minor}".format(**arguments),
        f"mechanisms={print_string(mechanisms, PLAIN)} locales={arguments['locales']}",
        f"properties=[{', '.join(sorted(key for key, _ in properties))}]",
        f"capabilities={print_table(sorted(capabilities, key=lambda entry: entry[0]))}",
    ])


def numbered(events):
    """(event, tag shown) for the deliveries among arranged events, from each channel's next on."""
    following = {}
    for event in events:
        if event.name in TAGGED:
            key = id(event.deliveries)
            tag = following.get(key, event.deliveries.next_shown)
            following[key] = tag + 1
            yield event, tag


def natural(text):
    """A key that puts c2 before c10."""
    return "".join(word.rjust(12, "0") if word.isdigit() else word
                   for word in re.split(r"([0-9]+)", text))


def merge_confirms(events):
    """One event for all acks of a channel and one for all nacks, where the last came: the grouping
    is not promised."""
    out = []
    for event in events:
        if event.kind == "confirm":
            same = [other for other in out if other.kind == "confirm" and
                    (other.connection, other.channel, other.name) ==
                    (event.connection, event.channel, event.name)]
            out = [other for other in out if other not in same]
            event = replace(event, tags=event.tags.union(*(other.tags for other in same)))
        out.append(event)
    return [event for event in out if event.kind != "confirm" or event.tags]


def ranges(tags):
    """1-3,5 for {1, 2, 3, 5}."""
    parts = []
    for tag in sorted(tags):
        if parts and parts[-1][1] == tag - 1:
            parts[-1][1] = tag
        else:
            parts.append([tag, tag])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
