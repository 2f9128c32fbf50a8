"""Messages that an exchange keeps back until their time has come, as clients of RabbitMQ's plug-in use it."""

import time

import pika
import pytest

from inbox import wait_for


def declare(channel, fresh, inner="direct", key="k"):
    exchange, queue = fresh("later"), fresh("due")
    channel.exchange_declare(
        exchange, "x-delayed-message", durable=True, arguments={"x-delayed-type": inner})
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, exchange, key)
    return exchange, queue


def publish(channel, exchange, body, delay, key="k"):
    channel.basic_publish(
        exchange, key, body, pika.BasicProperties(headers={"x-delay": delay}, delivery_mode=2))


def test_a_message_comes_within_50_ms_of_its_time(connection, channel, fresh):
    exchange, queue = declare(channel, fresh)
    arrived = {}
    channel.basic_consume(
        queue, lambda _, m, p, b: arrived.update({b: (time.monotonic(), p)}), auto_ack=True)
    delays = [300, 60, 150, 700]
    started = time.monotonic()
    for delay in delays:
        publish(channel, exchange, b"%d" % delay, delay)
    wait_for(connection, lambda: len(arrived) == len(delays), 10, "delayed messages")
    assert list(arrived) == [b"60", b"150", b"300", b"700"]
    for delay in delays:
        at, properties = arrived[b"%d" % delay]
        assert at - started >= delay / 1000 - 0.005
        assert properties.headers["x-delay"] == -delay


def test_confirms_do_not_wait_for_the_delay(connection, channel, fresh):
    exchange, queue = declare(channel, fresh)
    channel.confirm_delivery()
    channel.basic_publish(
        exchange, "k", b"body", pika.BasicProperties(headers={"x-delay": 3_600_000}),
        mandatory=True)
    assert channel.queue_declare(queue, passive=True).method.message_count == 0


@pytest.mark.parametrize("delay", ["100", True, 400 * 366 * 86_400_000])
def test_an_impossible_delay_closes_the_channel(connection, fresh, delay):
    channel = connection.channel()
    exchange, _ = declare(channel, fresh)
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        publish(channel, exchange, b"body", delay)
    assert raised.value.reply_code == 406
    assert raised.value.reply_text.startswith("PRECONDITION_FAILED - invalid header 'x-delay'")


def test_an_exchange_without_a_type_to_route_by_is_refused(connection, fresh):
    channel = connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        channel.exchange_declare(fresh("later"), "x-delayed-message")
    assert raised.value.reply_code == 406
    assert "x-delayed-type" in raised.value.reply_text
