"""A broker under attack: its memory, its log, and a client beside it that must not feel a thing."""

import contextlib
import os
import re
import resource
import threading
import time
from pathlib import Path

import pika
import pytest

from broker import Broker

MEBI = 1 << 20
POLL_SECONDS = 0.01


class WatchedBroker(Broker):
    """A broker whose memory and log are looked at."""

    def resident(self) -> int:
        """Bytes of memory that the process has now."""
        return self._status("VmRSS")

    def resident_peak(self) -> int:
        """The most that it ever had."""
        return self._status("VmHWM")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def lines(self, *texts: str) -> list[str]:
        """The log's lines that have all of these texts."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if all(text in line for text in texts)]

    def expect_line(self, *texts: str, seconds: float = 10) -> str:
        eventually(lambda: self.lines(*texts), f"line in the log with {texts}", seconds)
        return self.lines(*texts)[0]

    def _status(self, name: str) -> int:
        self.check()
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)[1]) << 10


class Bystander:
    """Publishes with confirms and consumes, in a thread of its own, until the block ends.

    When the block ends well, it has been served without a break from before to after it.
    """

    def __init__(self, broker: WatchedBroker, pause_seconds: float = 5):
        self.round_trips = 0
        self.pause = 0.0
        self._pause_max = pause_seconds
        self._broker = broker
        self._failure: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        self.expect_progress()
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.expect_progress()
                assert self.pause < self._pause_max, f"the bystander waited for {self.pause} s"
        finally:
            self._stopping.set()
            self._thread.join(20)

    def expect_progress(self) -> None:
        """A few more messages go out and come back."""
        goal = self.round_trips + 3
        eventually(
            lambda: self.round_trips >= goal or self._failure, "progress of the bystander", 20
        )
        self._broker.check()
        assert self._failure is None, f"the bystander failed: {self._failure!r}"

    def _run(self) -> None:
        try:
            parameters = pika.URLParameters(self._broker.url)
            parameters.blocked_connection_timeout = parameters.socket_timeout = 20
            with pika.BlockingConnection(parameters) as connection:
                self._play(connection.channel())
        except Exception as failure:  # Whatever it was, the test is to hear of it.
            self._failure = failure

    def _play(self, channel) -> None:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        received = []
        channel.basic_consume(queue, lambda *delivery: received.append(delivery[3]), auto_ack=True)
        while not self._stopping.is_set():
            started = time.monotonic()
            body = b"%d" % self.round_trips
            channel.basic_publish("", queue, body, mandatory=True)
            while not received:
                assert time.monotonic() < started + 20, "a message of the bystander is lost"
                channel.connection.process_data_events(time_limit=1)
            assert [received.pop()] == [body] and not received
            self.pause = max(self.pause, time.monotonic() - started)
            self.round_trips += 1


def eventually(condition, what: str, seconds: float = 10):
    """The condition's value as soon as it holds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        threading.Event().wait(POLL_SECONDS)
    return value


@contextlib.contextmanager
def serving(directory: Path, *options: str):
    """A broker for a block. It must be there at the end of it, and stop in order."""
    if os.environ.get("MARTLET_TEST_URL"):
        pytest.skip("the broker of MARTLET_TEST_URL cannot be watched")
    broker = WatchedBroker(directory, *options)
    try:
        broker.start()
        yield broker
        assert broker.stop() == 0, "the broker's exit status after SIGTERM"
    finally:
        broker.end()


def connections_allowed(wanted: int) -> int:
    """As many sockets as this process, and a broker that it starts, may have; at most `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + 200:
        soft = wanted + 200 if hard == resource.RLIM_INFINITY else min(hard, wanted + 200)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - 200)
