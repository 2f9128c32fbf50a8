"""A Celery worker in processes of its own, and the application that gives it work."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from celery_app import make_app

START_SECONDS = 30
STOP_SECONDS = 30
HERE = Path(__file__).resolve().parent


class Workshop:
    """A queue of tasks with an application to send them, and any number of workers."""

    def __init__(self, url: str, queue: str, directory: Path, queue_type: str = "classic"):
        self.scratch = directory / queue
        self.scratch.mkdir()
        self.app = make_app(url, queue, str(self.scratch), queue_type)
        self.environment = {
            **os.environ,
            "MARTLET_CELERY_URL": url,
            "MARTLET_CELERY_QUEUE": queue,
            "MARTLET_CELERY_SCRATCH": str(self.scratch),
            "MARTLET_CELERY_QUEUE_TYPE": queue_type,
        }
        self._queue = queue
        self._numbers = itertools.count(1)
        self._workers: list[Worker] = []

    def task(self, name: str):
        return self.app.tasks[name]

    def hire(self, *options: str) -> "Worker":
        """Starts a worker and returns when it answers."""
        worker = Worker(f"{self._queue}-{next(self._numbers)}@localhost", self, options)
        self._workers.append(worker)
        wait_until(
            worker.answers,
            START_SECONDS,
            lambda: f"answer of the worker; its log:\n{worker.story()}",
        )
        return worker

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs the celery command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "celery_app", *arguments],
            cwd=HERE,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )

    def runs(self, name: str) -> int:
        """How often the task `hold` with this name has begun."""
        return len(list(self.scratch.glob(f"{name}.run.*")))

    def release(self, name: str) -> None:
        (self.scratch / f"{name}.release").touch()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.app.close()


class Worker:
    """The worker's processes: one that talks to the broker, and children that run the tasks."""

    def __init__(self, name: str, workshop: Workshop, options: tuple[str, ...]):
        self.name = name
        self._app = workshop.app
        self._log = workshop.scratch / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "celery_app",
                    "worker",
                    "-n",
                    name,
                    "-c",
                    "2",
                    "-l",
                    "INFO",
                    *options,
                ],
                cwd=HERE,
                env=workshop.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def answers(self) -> bool:
        assert self.process.poll() is None, f"the worker ended:\n{self.story()}"
        # Not through the pool of connections, which keeps those that a killed broker broke.
        with self._app.connection_for_write() as connection:
            answers = self._app.control.ping([self.name], timeout=0.5, connection=connection)
        return answers == [{self.name: {"ok": "pong"}}]

    def stop(self) -> int:
        """Asks the worker to finish what it runs and to end; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Ends the worker and its children at once, as the loss of its machine would."""
        if self.process.poll() is None:
            # The session is the worker's own: this group is its processes and no others.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_SECONDS)

    def story(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


def wait_until(condition, seconds: float, what) -> None:
    """Asks again and again until the condition holds; `what` tells what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (
            f"no {what() if callable(what) else what} within {seconds} s"
        )
        time.sleep(0.02)
