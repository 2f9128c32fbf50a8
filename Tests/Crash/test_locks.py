"""Locks over crashes: whoever was lost gives back, and the time counts anew in the broker's next life."""

import time

import pika

from deadline import limit
from inbox import Inbox
from lives import PERSISTENT, lives  # noqa: F401

QUEUE = "locked"
LOCK_SECONDS = 0.4
MESSAGES = 40


def bodies(deliveries) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def test_locks_survive_crashes(lives):  # noqa: F811
    with limit(60):
        channel = lives.open()
        arguments = {"x-lock-timeout": int(LOCK_SECONDS * 1000)}
        channel.queue_declare(QUEUE, durable=True, arguments=arguments)
        left = [b"%d:" % number + b"x" * 3000 for number in range(MESSAGES)]
        for body in left:
            channel.basic_publish("", QUEUE, body, PERSISTENT, mandatory=True)
        for life in range(4):
            stuck = Inbox(channel, QUEUE)
            assert bodies(stuck.wait(len(left))) == left
            assert all(d.method.redelivered == (life > 0) for d in stuck.deliveries)
            channel.basic_cancel(stuck.tag)
            taken = time.monotonic()
            # Nobody answers, and so another one gets all of them, not before the time is over.
            other_channel = lives.open()
            other = Inbox(other_channel, QUEUE, arguments={"x-lock-timeout": 0})
            assert bodies(other.wait(len(left))) == left
            assert time.monotonic() - taken > LOCK_SECONDS * 0.8
            assert all(d.method.redelivered for d in other.deliveries)
            # The late answer means nothing; the other one's does, over the crash.
            channel.basic_ack(stuck.tags[-1], multiple=True)
            other_channel.basic_ack(other.tags[9], multiple=True)
            left = left[10:]
            lives.restart(other_channel)
            channel = lives.open()
        assert lives.count(channel, QUEUE) == 0 and left == []


def test_a_lock_that_was_prolonged_ends_with_the_broker(lives):  # noqa: F811
    with limit(60):
        channel = lives.open()
        channel.queue_declare(QUEUE, durable=True, arguments={"x-lock-timeout": 60_000})
        channel.basic_publish("", QUEUE, b"m", PERSISTENT, mandatory=True)
        method, _, _ = channel.basic_get(QUEUE)
        # Raises when the lock is lost.
        channel.basic_publish(
            "", f"amq.lock.{method.delivery_tag}", b"", pika.BasicProperties(), mandatory=True
        )
        lives.restart(channel)
        method, _, body = lives.open().basic_get(QUEUE)
        assert (method.redelivered, body) == (True, b"m")
