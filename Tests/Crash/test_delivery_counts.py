"""Counts of deliveries survive SIGKILL, so that a limit holds over all lives of the broker."""

import os
import random

import pika
import pytest

from broker import Broker
from deadline import limit
from inbox import Inbox, drain, wait_for
from test_crash import SHALLOW, open_channel
from topology import PERSISTENT

MESSAGES = 200
LIMIT = 4
WORK, DEAD, FENCE = "counted-work", "counted-dead", "counted-fence"
# Enough that most of it moves into lane files where the log is short.
BODY = b"x" * 20_000


@pytest.fixture(params=[(), SHALLOW], ids=["log", "lanes"])
def broker(tmp_path, request):
    if os.environ.get("MARTLET_TEST_URL"):
        pytest.skip("the broker of MARTLET_TEST_URL cannot be killed")
    broker = Broker(tmp_path, *request.param)
    yield broker
    broker.end()


def declare(channel):
    channel.queue_declare(DEAD, durable=True)
    channel.queue_declare(FENCE, durable=True)
    channel.queue_declare(
        WORK,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD,
        },
    )


def count_of(delivery) -> int:
    return (delivery.properties.headers or {}).get("x-delivery-count", 0)


def fence(channel) -> None:
    """What was said before on the channel is durable when this returns."""
    channel.basic_publish("", FENCE, BODY, PERSISTENT, mandatory=True)


def test_a_limit_holds_over_all_lives(broker):
    chance = random.Random(1)
    with limit(120):
        broker.start()
        channel = open_channel(broker)
        declare(channel)
        channel.confirm_delivery()
        for number in range(MESSAGES):
            channel.basic_publish("", WORK, b"%d:" % number + BODY, PERSISTENT, mandatory=True)
        for life in range(LIMIT + 1):
            inbox = Inbox(channel, WORK)
            deliveries = inbox.wait(MESSAGES)
            assert [d.body.partition(b":")[0] for d in deliveries] == [
                b"%d" % number for number in range(MESSAGES)
            ]
            assert {count_of(d) for d in deliveries} == {life}
            assert all(d.method.redelivered == (life > 0) for d in deliveries)
            channel.basic_cancel(deliveries[0].method.consumer_tag)
            chance.shuffle(deliveries)
            for delivery in deliveries:
                channel.basic_reject(delivery.method.delivery_tag, requeue=True)
            # A dead letter whose body is on disk is sent on when it was read.
            dead = MESSAGES if life == LIMIT else 0
            wait_for(
                channel.connection,
                lambda: channel.queue_declare(DEAD, passive=True).method.message_count == dead,
                20,
                f"{dead} dead letters",
            )
            fence(channel)
            broker.kill()
            broker.start()
            channel = open_channel(broker)
            channel.confirm_delivery()
        assert channel.queue_declare(WORK, passive=True).method.message_count == 0
        dead = drain(channel, DEAD, MESSAGES)
        reasons = {d.properties.headers["x-first-death-reason"] for d in dead}
        assert reasons == {"delivery_limit"}
        assert len({d.body for d in dead}) == MESSAGES
        channel.connection.close()
        assert broker.stop() == 0


def test_what_is_out_at_a_kill_is_not_counted(broker):
    with limit(60):
        broker.start()
        channel = open_channel(broker)
        declare(channel)
        channel.confirm_delivery()
        channel.basic_publish("", WORK, b"m", PERSISTENT, mandatory=True)
        for _ in range(LIMIT + 2):
            delivery = Inbox(channel, WORK).wait(1)[0]
            assert count_of(delivery) == 0
            broker.kill()
            broker.start()
            channel = open_channel(broker)
            channel.confirm_delivery()
        again = Inbox(channel, WORK).wait(1)[0]
        assert again.method.redelivered
        channel.basic_ack(again.method.delivery_tag)
        channel.connection.close()
        assert broker.stop() == 0
