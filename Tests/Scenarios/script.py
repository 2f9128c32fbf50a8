"""Scenario files: parsing them into scenarios and blocks, and writing new traces back.

    == title                      a scenario, until the next title or the end of the file
    skip rabbitmq: reason         not run against that product (or `only rabbitmq: reason`)

    a.1 queue.declare queue=q     a block: one command or several,
    ----                          then what they make the broker send,
    a.1 <- queue.declare-ok ...   until an empty line
    ---- rabbitmq: reason         and instead of it what that product sends
    a.1 <- ...
"""

import re
from dataclasses import dataclass, field

SEPARATOR = re.compile(r"----(?: (\w+)(?:: (.*))?)?\Z")
CONDITION = re.compile(r"(skip|only) (\w+): (.+)\Z")


class BadScript(Exception):
    pass


@dataclass
class Outcome:
    """Expected lines: the half-open range `start..<end` of the file's lines, counted from 0."""

    start: int
    end: int
    lines: list


@dataclass
class Block:
    line: int
    commands: list = field(default_factory=list)
    outcomes: dict = field(default_factory=dict)

    def outcome(self, product):
        return self.outcomes.get(product) or self.outcomes[""]


@dataclass
class Scenario:
    title: str
    line: int
    condition: tuple | None = None
    blocks: list = field(default_factory=list)

    @property
    def commands(self):
        return [text for block in self.blocks for _, text in block.commands]

    @property
    def needs_serve(self):
        return any(text.split()[0] in ("restart", "kill") for text in self.commands)

    def excluded(self, product):
        """Why the scenario is not run against this product, or None."""
        if self.condition:
            verb, name, reason = self.condition
            if (name == product) == (verb == "skip"):
                return reason
        return None


class Script:
    def __init__(self, path):
        self.path = path
        self.lines = path.read_text().splitlines()
        self.scenarios = []
        self.block = None
        self.open_outcome = None
        for index, line in enumerate(self.lines):
            self.parse(index, line.rstrip())
        self.end_block(len(self.lines))

    def parse(self, index, line):
        separator = SEPARATOR.match(line)
        if not line:
            self.end_block(index)
        elif line.startswith("== ") and self.block is None:
            self.scenarios.append(Scenario(line[3:].strip(), index + 1))
        elif separator:
            self.begin_outcome(index, separator.group(1) or "")
        elif self.open_outcome is not None:
            self.open_outcome.lines.append(line)
        elif not line.startswith("#"):
            self.command(index, line)

    def command(self, index, line):
        if not self.scenarios:
            self.fail(index, "a command before the first title")
        condition = CONDITION.match(line)
        if condition and not self.scenarios[-1].blocks:
            self.scenarios[-1].condition = condition.groups()
            return
        if self.block is None:
            self.block = Block(index + 1)
            self.scenarios[-1].blocks.append(self.block)
        self.block.commands.append((index + 1, line))

    def begin_outcome(self, index, product):
        if self.block is None:
            self.fail(index, "a trace without a command")
        if product in self.block.outcomes:
            self.fail(index, "a second trace for the same product")
        self.end_outcome(index)
        self.open_outcome = Outcome(index + 1, index + 1, [])
        self.block.outcomes[product] = self.open_outcome

    def end_outcome(self, index):
        if self.open_outcome is not None:
            self.open_outcome.end = index
            self.open_outcome = None

    def end_block(self, index):
        self.end_outcome(index)
        if self.block is not None and "" not in self.block.outcomes:
            self.fail(index, "a block without ----")
        self.block = None

    def fail(self, index, text):
        raise BadScript(f"{self.path}:{index + 1}: {text}")

    def rewrite(self, replacements):
        """Writes the file with new traces: a list of (outcome, lines)."""
        lines = list(self.lines)
        for outcome, new in sorted(replacements, key=lambda pair: -pair[0].start):
            lines[outcome.start:outcome.end] = new
        if lines != self.lines:
            self.path.write_text("\n".join(lines) + "\n")
