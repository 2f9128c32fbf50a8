"""dramatiq: its own broker for RabbitMQ, which delays, retries and dead-letters with queues of its own."""

import queue
import time

import dramatiq
import pika
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import AgeLimit, Callbacks, Retries, ShutdownNotifications, TimeLimit

SECONDS = 20
PRIORITY_MAX = 9


class Workshop:
    """A queue with its delayed (.DQ) and dead (.XQ) messages, tasks for it, and workers when they are started."""

    def __init__(self, url: str, name: str):
        self.name = name
        middleware = [AgeLimit(), TimeLimit(), ShutdownNotifications(), Callbacks(), Retries()]
        self.broker = RabbitmqBroker(
            url=url, middleware=middleware, confirm_delivery=True, max_priority=PRIORITY_MAX
        )
        self.done: queue.Queue = queue.Queue()
        self.attempts: dict[str, int] = {}
        self.workers: list[dramatiq.Worker] = []
        options = {"broker": self.broker, "queue_name": name, "min_backoff": 50, "max_backoff": 100}
        self.note = dramatiq.actor(self._note, actor_name="note", **options)
        self.persevere = dramatiq.actor(
            self._persevere, actor_name="persevere", max_retries=3, **options
        )

    def _note(self, text):
        self.done.put((text, time.monotonic()))

    def _persevere(self, text, attempts):
        """Fails until it has been tried so often."""
        self.attempts[text] = self.attempts.get(text, 0) + 1
        if self.attempts[text] < attempts:
            raise ValueError("not yet")
        self.done.put((text, time.monotonic()))

    def work(self, threads: int = 2) -> None:
        worker = dramatiq.Worker(self.broker, worker_threads=threads, worker_timeout=50)
        worker.start()
        self.workers.append(worker)

    def get(self) -> tuple[str, float]:
        return self.done.get(timeout=SECONDS)

    def close(self) -> None:
        for worker in self.workers:
            worker.stop(timeout=5000)
        self.broker.close()


@pytest.fixture
def workshop(url, fresh):
    opened = Workshop(url, fresh("dramatiq"))
    yield opened
    opened.close()
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for suffix in ("", ".DQ", ".XQ"):
            channel.queue_delete(opened.name + suffix)


def test_tasks_run(workshop):
    workshop.work()
    for number in range(50):
        workshop.note.send(number)
    assert sorted(workshop.get()[0] for _ in range(50)) == list(range(50))


def test_delayed_tasks_run_when_they_are_due(workshop):
    workshop.work()
    started = time.monotonic()
    for delay in (900, 300, 600):
        workshop.note.send_with_options(args=(delay,), delay=delay)
    workshop.note.send(0)
    ran = [workshop.get() for _ in range(4)]
    assert [delay for delay, _ in ran] == [0, 300, 600, 900]
    assert all(at - started >= delay / 1000 - 0.01 for delay, at in ran)


def test_retries_until_it_succeeds(workshop):
    workshop.work()
    workshop.persevere.send("task", 3)
    assert workshop.get()[0] == "task"
    assert workshop.attempts == {"task": 3}


def test_a_task_that_always_fails_is_a_dead_letter(workshop, channel):
    workshop.work()
    workshop.persevere.send("task", 100)
    deadline = time.monotonic() + SECONDS
    while (dead := channel.basic_get(workshop.name + ".XQ", auto_ack=True))[0] is None:
        assert time.monotonic() < deadline, "no dead letter"
        time.sleep(0.02)
    method, properties, body = dead
    message = dramatiq.Message.decode(body)
    assert (message.actor_name, message.args) == ("persevere", ("task", 100))
    assert workshop.attempts == {"task": 4}
    death = properties.headers["x-death"][0]
    assert (death["queue"], death["reason"], death["count"]) == (workshop.name, "rejected", 1)
    assert death["routing-keys"] == [workshop.name]
    for suffix in ("", ".DQ", ".XQ"):
        declared = channel.queue_declare(workshop.name + suffix, passive=True)
        assert declared.method.message_count == 0


def test_higher_priorities_run_first(workshop):
    for number in range(PRIORITY_MAX + 1):
        workshop.note.send_with_options(args=(number,), broker_priority=number)
    # One thread, which is given one message more than it works on.
    workshop.work(threads=1)
    ran = [workshop.get()[0] for _ in range(PRIORITY_MAX + 1)]
    assert ran == sorted(ran, reverse=True)


def test_tasks_survive_the_death_of_the_broker(own_broker, fresh):
    workshop = Workshop(own_broker.url, fresh("dramatiq"))
    try:
        workshop.work()
        for number in range(100):
            workshop.note.send_with_options(args=(number,), delay=1000 + number)
        own_broker.kill()
        own_broker.start()
        found: set[int] = set()
        while len(found) < 100:
            found.add(workshop.get()[0])
        assert found == set(range(100))
        workshop.note.send(100)
        while workshop.get()[0] != 100:
            pass
    finally:
        workshop.close()
