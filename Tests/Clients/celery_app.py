"""The Celery application of the tests. The worker's process and the tests' own make it alike."""

import os
import time
from pathlib import Path

from celery import Celery

HOLD_SECONDS = 30


def make_app(url: str, queue: str, scratch: str, queue_type: str = "classic") -> Celery:
    """An application whose tasks go through `queue` and leave marks in the directory `scratch`."""
    app = Celery(queue, broker=url, backend="rpc://")
    app.conf.update(
        task_default_queue=queue,
        task_default_queue_type=queue_type,
        # With quorum queues Celery delays tasks inside the broker, and asks for a topic exchange.
        task_default_exchange_type="topic" if queue_type == "quorum" else "direct",
        # Quorum queues have none.
        task_queue_max_priority=9 if queue_type == "classic" else None,
        task_track_started=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"confirm_publish": True},
        broker_connection_timeout=5,
    )
    define_tasks(app, Path(scratch))
    return app


def define_tasks(app: Celery, scratch: Path) -> None:
    """Gives the application its tasks; `shared` ones would join every other application."""

    @app.task(name="add", shared=False)
    def add(x, y):
        return x + y

    @app.task(name="total", shared=False)
    def total(numbers):
        return sum(numbers)

    @app.task(name="fail", shared=False)
    def fail(text):
        raise ValueError(text)

    @app.task(name="mark", shared=False)
    def mark(name):
        (scratch / name).touch()

    @app.task(
        name="persevere",
        shared=False,
        bind=True,
        autoretry_for=(ValueError,),
        retry_kwargs={"max_retries": 5, "countdown": 0.1},
    )
    def persevere(self, attempts):
        """Fails until it has been tried so often."""
        if self.request.retries + 1 < attempts:
            raise ValueError("not yet")
        return self.request.retries + 1

    @app.task(name="hold", shared=False, bind=True, acks_late=True)
    def hold(self, name):
        """Tells that it runs, runs until it is released, and returns whether it came again."""
        run = len(list(scratch.glob(f"{name}.run.*")))
        (scratch / f"{name}.run.{run}").touch()
        deadline = time.monotonic() + HOLD_SECONDS
        while not (scratch / f"{name}.release").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.request.delivery_info["redelivered"]


if "MARTLET_CELERY_URL" in os.environ:
    app = make_app(
        os.environ["MARTLET_CELERY_URL"],
        os.environ["MARTLET_CELERY_QUEUE"],
        os.environ["MARTLET_CELERY_SCRATCH"],
        os.environ["MARTLET_CELERY_QUEUE_TYPE"],
    )
