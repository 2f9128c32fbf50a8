"""Locks and consumer time-outs, as a worker that uses pika meets them."""

import time

import pika
import pytest

from inbox import Inbox, drain, wait_for
from test_memory_account import status
from watched_broker import serving


@pytest.fixture
def locked(channel, fresh):
    """A queue whose deliveries are locked for 300 ms."""
    name = fresh("locked")
    channel.queue_declare(name, arguments={"x-lock-timeout": 300})
    return name


def test_another_worker_gets_what_the_first_sits_on(connection, connect, channel, locked):
    stuck = Inbox(channel, locked)
    channel.basic_publish("", locked, b"job")
    stuck.wait(1)
    started = time.monotonic()
    channel.basic_cancel(stuck.tag)
    other = Inbox(connect().channel(), locked, arguments={"x-lock-timeout": 0})
    other.wait(1)
    assert time.monotonic() - started > 0.25
    assert other.deliveries[0].method.redelivered
    # The late worker is done after all: its channel lives, and the job is the other's.
    channel.basic_ack(stuck.tags[0])
    channel.basic_publish("", locked, b"next")
    assert [delivery.body for delivery in other.wait(2)] == [b"job", b"next"]
    other.channel.basic_ack(0, multiple=True)
    other.channel.basic_cancel(other.tag)
    assert drain(channel, locked, 0) == []


def test_a_worker_that_prolongs_keeps_its_job(connection, channel, locked):
    channel.confirm_delivery()
    channel.basic_publish("", locked, b"job", mandatory=True)
    method, _, _ = channel.basic_get(locked)
    started = time.monotonic()
    while time.monotonic() - started < 1:
        connection.process_data_events(0.1)
        # Raises UnroutableError when the lock is lost.
        channel.basic_publish("", f"amq.lock.{method.delivery_tag}", b"", mandatory=True)
        assert channel.basic_get(locked)[0] is None
    channel.basic_ack(method.delivery_tag)
    time.sleep(0.4)
    assert channel.basic_get(locked)[0] is None


def test_a_stuck_consumer_is_cancelled_and_hears_so(connection, channel, queue):
    cancelled = []
    channel.add_on_cancel_callback(cancelled.append)
    stuck = Inbox(channel, queue, arguments={"x-consumer-timeout": 200})
    for body in [b"1", b"2", b"3"]:
        channel.basic_publish("", queue, body)
    wait_for(connection, lambda: cancelled, 10, "basic.cancel")
    assert cancelled[0].method.consumer_tag == stuck.tag
    assert stuck.bodies == [b"1", b"2", b"3"]
    channel.basic_ack(stuck.tags[-1], multiple=True)
    again = drain(channel, queue, 3)
    assert [delivery.body for delivery in again] == [b"1", b"2", b"3"]
    assert all(delivery.method.redelivered for delivery in again)


def test_what_happened_is_told(tmp_path):
    with serving(tmp_path) as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        channel = connection.channel()
        cancelled = []
        channel.add_on_cancel_callback(cancelled.append)
        channel.queue_declare("q")
        stuck = Inbox(channel, "q", arguments={"x-consumer-timeout": 100})
        channel.basic_publish("", "q", b"1")
        channel.basic_publish("", "q", b"2")
        wait_for(connection, lambda: cancelled, 10, "basic.cancel")
        channel.basic_ack(stuck.tags[0])
        channel.basic_nack(stuck.tags[1])
        stuck.settle()
        figures = status(broker)
        assert figures["deliveries-timed-out"] == 2
        assert figures["consumers-timed-out"] == 1
        assert figures["late-answers"] == 2
        told = broker.lines("has not acknowledged for 100 ms")
        assert len(told) == 1 and f"consumer '{stuck.tag}' of queue 'q' on channel 1" in told[0]
        connection.close()
