"""A broker of the runner's own: started on a free port with a fresh directory, stopped, killed."""

import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_LIMIT_SECONDS = 60
STOP_LIMIT_SECONDS = 60
# Outside the range that the kernel takes for outgoing connections.
PORTS = range(20000, 32000)


class BrokerFailed(Exception):
    pass


class Broker:
    """`command` is a line with {port} and {data} in it."""

    def __init__(self, command):
        self.command = command
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="scenario-"))
        self.log = open(self.directory / "log", "ab")
        self.process = None

    def start(self):
        words = [word.format(port=self.port, data=self.directory / "data")
                 for word in shlex.split(self.command)]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, start_new_session=True)
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self.accepts():
            if self.exited() or time.monotonic() > deadline:
                self.kill()
                raise BrokerFailed(f"the broker did not start:\n{self.last_words()}")
            time.sleep(0.05)

    def accepts(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def exited(self):
        """What waitid says, or None. Does not reap: the process keeps its number, so that its group
        can still be signalled."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def terminate(self):
        """Asks the broker to stop; `wait_for_exit` says when it has."""
        os.kill(self.process.pid, signal.SIGTERM)

    def wait_for_exit(self, meanwhile):
        deadline = time.monotonic() + STOP_LIMIT_SECONDS
        while not self.exited():
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerFailed(f"the broker did not stop:\n{self.last_words()}")
            meanwhile()

    def kill(self):
        """SIGKILL to the broker and to whatever it started."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def forget_data(self):
        self.kill()
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def remove(self):
        self.kill()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def last_words(self):
        self.log.flush()
        return "\n".join((self.directory / "log").read_text(errors="replace").splitlines()[-20:])


def free_port():
    """A port with two free ones above it."""
    for _ in range(100):
        port = random.choice(PORTS)
        if all(is_free(port + offset) for offset in range(3)):
            return port
    raise BrokerFailed("no free port")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False
