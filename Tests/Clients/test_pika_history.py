"""pika: exchanges that send their last messages to whatever is bound to them."""

import contextlib
import os

import pika
import pytest

from inbox import drain

pytestmark = pytest.mark.skipif(
    "MARTLET_TEST_URL" in os.environ, reason="another broker may lack this type"
)


def bodies(channel, queue, count):
    return [delivery.body for delivery in drain(channel, queue, count)]


def test_a_new_queue_gets_the_last_messages(channel, fresh):
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(
        exchange, "x-recent-history", arguments={"x-recent-history-length": 3}
    )
    for number in range(5):
        channel.basic_publish(exchange, "k", str(number).encode())
    channel.basic_publish(
        exchange, "k", b"hidden",
        pika.BasicProperties(headers={"x-recent-history-no-store": True}),
    )
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, exchange, "any")
    channel.basic_publish(exchange, "other", b"5")
    assert bodies(channel, queue, 4) == [b"2", b"3", b"4", b"5"]


def test_an_exchange_gets_them_too(channel, fresh):
    first, second, queue = fresh("x"), fresh("y"), fresh("q")
    channel.exchange_declare(first, "x-recent-history")
    channel.exchange_declare(second, "direct")
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, second, "b")
    for key in ("a", "b", "c"):
        channel.basic_publish(first, key, key.encode())
    channel.exchange_bind(second, first)
    assert bodies(channel, queue, 1) == [b"b"]


def test_a_long_history_comes_whole_and_in_order(channel, fresh):
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(
        exchange, "x-recent-history", arguments={"x-recent-history-length": 5000}
    )
    for number in range(6000):
        channel.basic_publish(exchange, "", str(number).encode())
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, exchange)
    assert bodies(channel, queue, 5000) == [str(number).encode() for number in range(1000, 6000)]


@pytest.mark.parametrize("length, told", [(0, "0"), ("ten", '<<"ten">>')])
def test_a_length_that_is_none_is_refused(channel, fresh, length, told):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.exchange_declare(
            fresh("x"), "x-recent-history", arguments={"x-recent-history-length": length}
        )
    assert closed.value.reply_code == 406
    assert closed.value.reply_text == (
        f"PRECONDITION_FAILED - Invalid argument {told},"
        " 'x-recent-history-length' must be a positive integer"
    )


def test_a_durable_exchange_keeps_them_over_a_kill(own_broker):
    connection = pika.BlockingConnection(pika.URLParameters(own_broker.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("x", "x-recent-history", durable=True)
    for number in range(30):
        channel.basic_publish("x", "k", str(number).encode(), pika.BasicProperties(delivery_mode=2))
    own_broker.kill()
    own_broker.start()
    # It learns only now that the broker was gone.
    with contextlib.suppress(pika.exceptions.AMQPError):
        connection.close()
    with pika.BlockingConnection(pika.URLParameters(own_broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", exclusive=True)
        channel.queue_bind("q", "x")
        assert bodies(channel, "q", 20) == [str(number).encode() for number in range(10, 30)]
