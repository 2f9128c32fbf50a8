"""A broker of its own for each attack, whose memory and log are looked at."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

PATIENCE_SECONDS = 60


class Broker:
    def __init__(self, binary, options, directory, stalls_log):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log_path = Path(directory) / "log"
        self.reader = None
        log = self.log_path.open("wb")
        if stalls_log:
            self.reader, log = os.pipe()
        command = [binary, "serve", "--data", f"{directory}/data"]
        self.process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{self.port}", *options], stdout=log, stderr=log
        )
        if stalls_log:
            os.close(log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the broker did not start: {self.log()}") from None
                time.sleep(0.02)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def memory(self, name):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1]) >> 10

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def longest_turn(self):
        """What the broker's own figures say: from begin to end, and how much of that on the processor."""
        if self.reader is not None:
            return "-"
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            found = re.findall(r"longest-turn(?:-on-processor)?=([0-9.]+)", self.log())
            if found or "status: " in self.log():
                return "/".join(found[-2:]) or "-"
            time.sleep(0.02)
        return "-"

    def end(self):
        self.process.kill()
        self.process.wait()
        if self.reader is not None:
            os.close(self.reader)
