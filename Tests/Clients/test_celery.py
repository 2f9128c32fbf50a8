"""Celery: a real worker process, its tasks, retries, delays, remote control, and its end."""

import json
import signal
import time

import pytest
from celery import chain, group
from celery.exceptions import TaskRevokedError

from celery_worker import Workshop, wait_until

SECONDS = 20


@pytest.fixture(scope="module")
def workshop(session_url, tmp_path_factory):
    """A queue with one worker for the tests that leave the worker as it is."""
    opened = Workshop(session_url, "celery-tests", tmp_path_factory.mktemp("celery"))
    try:
        opened.worker = opened.hire("-E")
        yield opened
        assert opened.worker.stop() == 0
    finally:
        opened.close()
        with opened.app.connection() as connection:
            connection.default_channel.queue_delete("celery-tests")
            connection.default_channel.exchange_delete("celery-tests")


@pytest.fixture
def own_workshop(url, fresh, tmp_path):
    """A queue without a worker yet, for the tests that start and end workers."""
    opened = Workshop(url, fresh("celery"), tmp_path)
    yield opened
    opened.close()


def test_task_returns_its_result(workshop):
    assert workshop.task("add").delay(2, 3).get(timeout=SECONDS) == 5


def test_task_that_fails_raises_for_its_caller(workshop):
    with pytest.raises(ValueError, match="no good"):
        workshop.task("fail").delay("no good").get(timeout=SECONDS)


def test_group_returns_all_results(workshop):
    add = workshop.task("add")
    results = group(add.s(n, n) for n in range(100)).apply_async()
    assert results.get(timeout=SECONDS) == [2 * n for n in range(100)]


def test_chain_passes_results_on(workshop):
    add = workshop.task("add")
    assert chain(add.s(1, 2), add.s(3), add.s(4)).apply_async().get(timeout=SECONDS) == 10


def test_caller_hears_when_a_task_starts(workshop):
    result = workshop.task("hold").delay("heard")
    heard = []

    def note(message):
        # Late news of the tasks before this one come here, too.
        if message["task_id"] == result.id:
            heard.append(message["status"])
            workshop.release("heard")

    assert result.get(timeout=SECONDS, on_message=note) is False
    assert heard == ["STARTED", "SUCCESS"]


def test_retries_until_it_succeeds(workshop):
    assert workshop.task("persevere").delay(4).get(timeout=SECONDS) == 4


def test_retries_end(workshop):
    with pytest.raises(ValueError, match="not yet"):
        workshop.task("persevere").delay(100).get(timeout=SECONDS)


def test_task_waits_for_its_time(workshop):
    sent = time.monotonic()
    result = workshop.task("add").apply_async((1, 1), countdown=1)
    assert result.get(timeout=SECONDS) == 2
    assert time.monotonic() - sent > 0.9


def test_expired_task_does_not_run(workshop):
    result = workshop.task("mark").apply_async(("expired",), expires=-1)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert not (workshop.scratch / "expired").exists()


def test_revoked_task_does_not_run(workshop):
    result = workshop.task("mark").apply_async(("revoked",), countdown=2)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert not (workshop.scratch / "revoked").exists()


def test_running_task_is_terminated(workshop):
    result = workshop.task("hold").delay("endless")
    wait_until(lambda: workshop.runs("endless") == 1, SECONDS, "start")
    result.revoke(terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    workshop.release("endless")


def test_control_reaches_the_worker(workshop):
    name = workshop.worker.name
    assert workshop.app.control.ping([name], timeout=5) == [{name: {"ok": "pong"}}]
    inspect = workshop.app.control.inspect([name], timeout=5)
    assert "add" in inspect.registered()[name]
    assert [queue["name"] for queue in inspect.active_queues()[name]] == ["celery-tests"]
    assert inspect.stats()[name]["broker"]["transport"] == "amqp"


def test_celery_inspect_ping(workshop):
    done = workshop.command("inspect", "ping", "-j", "-t", "5", "-d", workshop.worker.name)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {workshop.worker.name: {"ok": "pong"}}


def test_worker_takes_on_another_queue(workshop, fresh):
    name, queue = workshop.worker.name, fresh("more")
    reply = workshop.app.control.add_consumer(queue, destination=[name], reply=True, timeout=5)
    assert "ok" in reply[0][name]
    assert workshop.task("add").apply_async((1, 2), queue=queue).get(timeout=SECONDS) == 3
    reply = workshop.app.control.cancel_consumer(queue, destination=[name], reply=True, timeout=5)
    assert "ok" in reply[0][name]


def test_events_tell_of_a_task(workshop):
    kinds = ["task-received", "task-started", "task-succeeded"]
    sent, seen = [], []

    def note(event):
        # Late news of the tasks before this one come here, too.
        if [result.id for result in sent] == [event["uuid"]]:
            seen.append(event["type"])
            receiver.should_stop = event["type"] == "task-succeeded"

    def send_once(*_, **__):
        if not sent:
            sent.append(workshop.task("add").delay(1, 1))

    with workshop.app.connection() as connection:
        receiver = workshop.app.events.Receiver(connection, handlers=dict.fromkeys(kinds, note))
        # The consumer is ready when the receiver says so; an event before that would be lost.
        receiver.on_consume_ready = send_once
        receiver.capture(limit=None, timeout=SECONDS, wakeup=False)
    assert seen == kinds


def test_task_of_a_killed_worker_is_done_by_another(own_workshop):
    first = own_workshop.hire()
    result = own_workshop.task("hold").delay("task")
    wait_until(lambda: own_workshop.runs("task") == 1, SECONDS, "first run")
    first.kill()
    own_workshop.hire()
    wait_until(lambda: own_workshop.runs("task") == 2, SECONDS, "second run")
    own_workshop.release("task")
    assert result.get(timeout=SECONDS) is True


def test_worker_finishes_its_task_before_it_ends(own_workshop):
    worker = own_workshop.hire()
    result = own_workshop.task("hold").delay("last")
    wait_until(lambda: own_workshop.runs("last") == 1, SECONDS, "start")
    worker.process.send_signal(signal.SIGTERM)
    left_behind = own_workshop.task("add").delay(1, 2)
    own_workshop.release("last")
    assert result.get(timeout=SECONDS) is False
    assert worker.process.wait(SECONDS) == 0
    own_workshop.hire()
    assert left_behind.get(timeout=SECONDS) == 3


def test_workers_share_the_tasks(own_workshop):
    for _ in range(2):
        own_workshop.hire()
    # Four processes, each held by one task: none waits behind another.
    results = [own_workshop.task("hold").delay(f"share{n}") for n in range(4)]
    wait_until(
        lambda: all(own_workshop.runs(f"share{n}") == 1 for n in range(4)), SECONDS, "four runs"
    )
    for n in range(4):
        own_workshop.release(f"share{n}")
    assert [result.get(timeout=SECONDS) for result in results] == [False] * 4


def test_task_is_not_held_up_by_tasks_of_later(own_workshop):
    """A worker that waits with ten tasks raises its prefetch for the whole channel.

    It does so only towards what it takes for RabbitMQ before 4.0; towards others the prefetch of its
    consumer stays what it was, and the worker is full.
    """
    own_workshop.hire()
    later = [own_workshop.task("add").apply_async((n, n), countdown=6) for n in range(10)]
    now = own_workshop.task("add").delay(1, 2)
    assert now.get(timeout=SECONDS) == 3
    assert not any(result.ready() for result in later)
    assert [result.get(timeout=SECONDS) for result in later] == [2 * n for n in range(10)]


def test_tasks_of_higher_priority_run_first(own_workshop):
    add = own_workshop.task("add")
    results = [add.apply_async((n, n), priority=n) for n in range(10)]
    own_workshop.hire("-c", "1")
    assert [result.get(timeout=SECONDS) for result in results] == [2 * n for n in range(10)]
    order = sorted(range(10), key=lambda n: results[n].date_done)
    assert order == list(range(9, -1, -1))
