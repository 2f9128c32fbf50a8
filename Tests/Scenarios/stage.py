"""The stage: the broker that scenarios are played against, and whether what came was expected."""

import difflib
import re
import time
from dataclasses import replace

from command import Command
from control import Control
from play import Play
from pump import Pump

# How long an expected line may be late after the broker seemed done, before that is a failure.
PATIENCE_SECONDS = 1.0
# How long nothing may come before a trace is written down.
REWRITE_QUIET_SECONDS = 0.1
EVENTUALLY_SECONDS = 10


class Stage:
    def __init__(self, address, broker, limit):
        self.address = address
        self.broker = broker
        self.limit = limit
        self.pump = Pump()
        self.control = None
        self.begin()

    def begin(self):
        if self.broker:
            self.address = replace(self.address, host="127.0.0.1", port=self.broker.port)
            if self.broker.process is None:
                self.broker.start()
        self.control = Control(self.pump, self.address, self.limit)

    def restart(self):
        """An orderly end and a new start on the same data."""
        self.control.close()
        self.broker.terminate()
        self.broker.wait_for_exit(lambda: self.pump.turn(0.02))
        self.after_exit()

    def kill(self):
        """SIGKILL and a new start on the same data."""
        self.broker.kill()
        self.after_exit()

    def after_exit(self):
        self.pump.until(lambda: not self.pump.live, self.limit)
        self.broker.kill()
        self.begin()

    def recover(self):
        """After a scenario: a broker that went away is started afresh. Returns what happened."""
        self.pump.turn(0)
        if self.control.connection.state == "open":
            return None
        said = "the runner's connection was closed"
        if self.broker and self.broker.exited():
            status = self.broker.exited().si_status
            said = f"the broker exited, status {status}:\n{self.broker.last_words()}"
            self.broker.forget_data()
        self.begin()
        return said

    # Playing.

    def play(self, scenario, rewriting):
        """Plays a scenario. Returns the outcomes whose lines differ, as (block, outcome, lines)."""
        play = Play(self, scenario)
        differences = []
        try:
            for block in scenario.blocks:
                outcome = block.outcome(self.control.product)
                lines = self.run(play, block, outcome.lines, rewriting)
                lines = adopt(outcome.lines, lines)
                if lines != outcome.lines:
                    differences.append((block, outcome, lines))
                    if not rewriting:
                        break
        finally:
            play.leave()
        return differences

    def run(self, play, block, expected, rewriting):
        """Does the commands of a block. Returns the trace of all of them."""
        commands = [Command(text) for _, text in block.commands]
        for command, following in zip(commands, [*commands[1:], None]):
            play.perform(command)
            if following and following.joined:
                continue
            play.settle()
            if rewriting:
                self.pump.until_quiet(REWRITE_QUIET_SECONDS)
            if following is None:
                self.be_patient(play, command, expected)
            play.end_command()
        lines = play.lines()
        play.end_block()
        return lines

    def be_patient(self, play, command, expected):
        """Gives late lines a chance, and repeats a command that must come true eventually."""
        def matches():
            return adopt(expected, play.lines()) == expected

        if command.eventually:
            self.repeat(play, command, matches)
        elif len(play.lines()) < len(expected) and self.pump.until(matches, PATIENCE_SECONDS):
            play.settle()

    def repeat(self, play, command, matches):
        deadline = time.monotonic() + EVENTUALLY_SECONDS
        while not matches() and time.monotonic() < deadline:
            self.pump.until(lambda: False, 0.05)
            play.trace.events.clear()
            connection = play.connection(command)
            if command.channel and connection.channel(command.channel).state == "closed":
                play.perform(Command(f"open {command.connection}.{command.channel}"))
            play.perform(Command(command.text))
            play.settle()


def adopt(expected, lines):
    """The lines that came, those that an expected pattern matches replaced by the pattern."""
    patterns = [(line, pattern(line)) for line in expected if line.startswith("~ ")]
    return [next((text for text, regex in patterns if regex.fullmatch(line)), line)
            for line in lines]


def pattern(line):
    return re.compile(".*".join(re.escape(part) for part in line[2:].split("*")))


def difference(path, block, outcome, lines):
    """A unified diff of one block's trace, headed by the place of its first command."""
    diff = difflib.unified_diff(outcome.lines, lines, "expected", "came", n=3, lineterm="")
    commands = [f"{path}:{line}: {text}" for line, text in block.commands]
    return "\n".join([*commands, *diff])
