"""Celery on a broker that is killed, and on quorum queues with their delays inside the broker."""

import pytest

from celery_worker import Workshop, wait_until

SECONDS = 30


@pytest.fixture
def make_workshop(own_broker, tmp_path):
    opened = []

    def make(**options):
        opened.append(Workshop(own_broker.url, "celery", tmp_path, **options))
        return opened[-1]

    yield make
    for workshop in opened:
        workshop.close()


def test_worker_goes_on_after_the_broker_was_killed(own_broker, make_workshop):
    workshop = make_workshop()
    worker = workshop.hire()
    mark = workshop.task("mark")
    for number in range(3):
        mark.apply_async((f"mark{number}",), ignore_result=True)
        wait_until((workshop.scratch / f"mark{number}").exists, SECONDS, "mark")
        own_broker.kill()
        own_broker.start()
    wait_until(worker.answers, SECONDS, "answer of the worker")


def test_tasks_wait_out_the_broker(own_broker, make_workshop):
    workshop = make_workshop()
    mark = workshop.task("mark")
    for number in range(50):
        mark.apply_async((f"done{number}",), ignore_result=True)
    own_broker.kill()
    own_broker.start()
    workshop.hire()
    wait_until(lambda: len(list(workshop.scratch.glob("done*"))) == 50, SECONDS, "50 tasks done")


@pytest.mark.deadline(120)
def test_quorum_queues(make_workshop):
    workshop = make_workshop(queue_type="quorum")
    workshop.hire()
    assert workshop.task("add").delay(1, 2).get(timeout=SECONDS) == 3


@pytest.mark.deadline(120)
def test_delayed_delivery(make_workshop):
    """With quorum queues a delay is a way through queues that expire, one for each bit of it."""
    workshop = make_workshop(queue_type="quorum")
    workshop.hire()
    assert workshop.task("add").apply_async((3, 4), countdown=3).get(timeout=SECONDS) == 7
