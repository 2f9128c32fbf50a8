"""The broker under test: a martlet process on a data directory, to be killed and started again."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30
STOP_SECONDS = 30
LOG_TAIL_BYTES = 4000


class BrokerFailed(Exception):
    """The broker did not start, or ended by itself. Its text has the end of the broker's log."""


class Broker:
    """A martlet process. Data, address and log stay the same however often it is started."""

    def __init__(self, directory: Path, *options: str):
        self.data = directory / "data"
        self.log = directory / "broker.log"
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        self.process: subprocess.Popen | None = None
        self.command = [
            str(binary()),
            "serve",
            "--data",
            str(self.data),
            "--listen",
            f"127.0.0.1:{self.port}",
            *options,
        ]

    def start(self) -> None:
        """Starts the broker and returns when it accepts connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerFailed(self._story(f"not listening after {START_SECONDS} s"))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.02)
            self.check()

    def kill(self) -> None:
        """Ends the broker with SIGKILL, as a crash would."""
        self.process.kill()
        self.process.wait(timeout=STOP_SECONDS)

    def stop(self) -> int:
        """Ends the broker with SIGTERM and returns its exit status, 0 when all went well."""
        self.check()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerFailed(
                self._story(f"still running {STOP_SECONDS} s after SIGTERM")
            ) from None

    def check(self) -> None:
        """Raises when the broker has ended by itself."""
        if self.process.poll() is not None:
            raise BrokerFailed(self._story(f"ended with status {self.process.returncode}"))

    def end(self) -> None:
        """Makes sure that nothing is left running, whatever happened before."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def _story(self, what: str) -> str:
        tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return f"{' '.join(self.command)}: {what}; the end of its log:\n{tail}"


def binary() -> Path:
    """The broker's executable: $MARTLET, or the newest kind of build that exists."""
    named = os.environ.get("MARTLET")
    builds = (
        [Path(named)] if named else [ROOT / ".build/release/martlet", ROOT / ".build/debug/martlet"]
    )
    for path in builds:
        if os.access(path, os.X_OK):
            return path.absolute()
    raise FileNotFoundError(
        f"no broker to test: {', '.join(map(str, builds))}; build it or set MARTLET"
    )


def environment() -> dict[str, str]:
    """The environment without the tests' own variables; the broker's options in it stay."""
    own = ("MARTLET_TEST_", "MARTLET_CRASH_")
    return {
        name: value
        for name, value in os.environ.items()
        if name != "MARTLET" and not name.startswith(own)
    }


def free_port() -> int:
    """A loopback port that is not ephemeral: no client takes it while the broker is down."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise OSError("no free port")


if __name__ == "__main__":
    # For scripts that start a broker of their own.
    print(free_port())
