"""pika: bindings with filters, which only Martlet has."""

import os

import pika
import pytest

from inbox import drain

pytestmark = pytest.mark.skipif(
    "MARTLET_TEST_URL" in os.environ, reason="another broker may know no filters"
)

FILTER = "level = 'error' AND retries > 3 AND body LIKE '%timeout%'"


def bodies(channel, queue, count):
    return [delivery.body for delivery in drain(channel, queue, count)]


def properties(**headers):
    return pika.BasicProperties(headers=headers)


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_a_queue_gets_what_its_filter_is_true_of(channel, fresh, kind):
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(exchange, kind)
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, exchange, "k", {"x-filter": FILTER})
    for body, headers in [
        (b"1: a timeout", {"level": "error", "retries": 4}),
        (b"2: a timeout", {"level": "error", "retries": 3}),
        (b"3: a timeout", {"level": "info", "retries": 4}),
        (b"4: refused", {"level": "error", "retries": 4}),
        (b"5: a timeout", {"retries": 4}),
        (b"6: timeout", {"level": "error", "retries": 2**40}),
    ]:
        channel.basic_publish(exchange, "k", body, properties(**headers))
    channel.basic_publish(exchange, "k", b"7: no properties, timeout")
    assert bodies(channel, queue, 2) == [b"1: a timeout", b"6: timeout"]


def test_an_exchange_gets_what_its_filter_is_true_of(channel, fresh):
    first, second, queue = fresh("x"), fresh("y"), fresh("q")
    channel.exchange_declare(first, "topic")
    channel.exchange_declare(second, "fanout")
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, second)
    channel.exchange_bind(second, first, "#", {"x-filter": "p.type IN ('order', 'refund')"})
    for kind in ("order", "invoice", "refund", None):
        channel.basic_publish(
            first, "a.b", str(kind).encode(), pika.BasicProperties(type=kind)
        )
    assert bodies(channel, queue, 2) == [b"order", b"refund"]


@pytest.mark.parametrize("size", [10, 70_000, 300_000])
def test_bodies_of_any_size_are_looked_at(channel, fresh, size):
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(exchange, "fanout")
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, exchange, "", {"x-filter": "body LIKE 'yes%'"})
    channel.basic_publish(exchange, "", b"yes" + b"." * size)
    channel.basic_publish(exchange, "", b"no" + b"." * size)
    assert bodies(channel, queue, 1) == [b"yes" + b"." * size]


def test_a_mistake_is_told_with_its_column(connection, fresh):
    channel = connection.channel()
    queue = channel.queue_declare(fresh("q"), exclusive=True).method.queue
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.queue_bind(queue, "amq.fanout", "", {"x-filter": "level = )"})
    assert caught.value.reply_code == 406
    assert caught.value.reply_text == (
        "PRECONDITION_FAILED - invalid arg 'x-filter' for the binding: "
        "column 9: expected a value, got ')'"
    )


def test_unbinding_needs_the_filter(channel, fresh):
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(exchange, "fanout")
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, exchange, "", {"x-filter": "a = 1"})
    channel.queue_bind(queue, exchange, "", {"x-filter": "a = 2"})
    channel.queue_unbind(queue, exchange, "", {"x-filter": "a = 1"})
    channel.queue_unbind(queue, exchange, "")
    for value in (1, 2):
        channel.basic_publish(exchange, "", str(value).encode(), properties(a=value))
    assert bodies(channel, queue, 1) == [b"2"]
