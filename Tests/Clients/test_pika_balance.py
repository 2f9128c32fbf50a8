"""pika: exchanges that send each message to one of their bindings."""

import os
from collections import Counter

import pika
import pytest

pytestmark = pytest.mark.skipif(
    "MARTLET_TEST_URL" in os.environ, reason="another broker may lack these types"
)

TYPES = ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"]


def key_of(kind):
    return "1" if kind == "x-consistent-hash" else ""


def bound(channel, fresh, exchange, kind, count, durable=False):
    queues = [fresh("q") for _ in range(count)]
    for queue in queues:
        channel.queue_declare(queue, durable=durable)
        channel.queue_bind(queue, exchange, key_of(kind))
    return queues


def take_all(channel, queue):
    bodies = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


@pytest.mark.parametrize("kind", TYPES)
def test_each_message_reaches_one_queue(channel, fresh, kind):
    exchange = fresh("x")
    channel.exchange_declare(exchange, kind)
    queues = bound(channel, fresh, exchange, kind, 4)
    channel.confirm_delivery()
    for number in range(400):
        channel.basic_publish(exchange, str(number), str(number).encode(), mandatory=True)
    found = [take_all(channel, queue) for queue in queues]
    assert sorted(int(body) for part in found for body in part) == list(range(400))
    assert all(len(part) > 50 for part in found)


@pytest.mark.parametrize("argument", ["hash-header", "x-hash-on"])
def test_a_header_is_hashed(channel, fresh, argument):
    exchange = fresh("x")
    channel.exchange_declare(exchange, "x-consistent-hash", arguments={argument: "user"})
    queues = bound(channel, fresh, exchange, "x-consistent-hash", 4)
    channel.confirm_delivery()
    for number in range(200):
        user = f"user-{number % 20}"
        channel.basic_publish(
            exchange, str(number), user.encode(), pika.BasicProperties(headers={"user": user})
        )
    places = Counter(user for queue in queues for user in set(take_all(channel, queue)))
    assert len(places) == 20 and set(places.values()) == {1}


def test_a_property_is_hashed(channel, fresh):
    exchange = fresh("x")
    channel.exchange_declare(
        exchange, "x-consistent-hash", arguments={"hash-property": "message_id"}
    )
    queues = bound(channel, fresh, exchange, "x-consistent-hash", 4)
    channel.confirm_delivery()
    for number in range(200):
        name = f"id-{number % 20}"
        channel.basic_publish(
            exchange, str(number), name.encode(), pika.BasicProperties(message_id=name)
        )
    places = Counter(name for queue in queues for name in set(take_all(channel, queue)))
    assert len(places) == 20 and set(places.values()) == {1}


@pytest.mark.parametrize(
    "key, text",
    [
        ("heavy", 'The binding key must be an integer: <<"heavy">>'),
        ("0", "The binding key must be greater than 0"),
        ("1001", "The binding key must not be greater than 1000: 1001"),
    ],
)
def test_a_key_that_is_no_weight_is_refused(channel, fresh, key, text):
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(exchange, "x-consistent-hash")
    channel.queue_declare(queue, exclusive=True)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.queue_bind(queue, exchange, key)
    assert closed.value.reply_code == 406
    assert closed.value.reply_text == f"PRECONDITION_FAILED - {text}"


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"hash-header": "a", "hash-property": "message_id"},
            "hash-header and hash-property are mutually exclusive",
        ),
        ({"hash-property": "app_id"}, "Unsupported property: app_id"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(channel, fresh, arguments, text):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.exchange_declare(fresh("x"), "x-consistent-hash", arguments=arguments)
    assert closed.value.reply_code == 406
    assert closed.value.reply_text == f"PRECONDITION_FAILED - {text}"


def test_a_local_exchange_leads_to_queues_without_keys(connection, fresh):
    channel = connection.channel()
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(exchange, "x-local-random")
    channel.queue_declare(queue, exclusive=True)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.queue_bind(queue, exchange, "key")
    assert closed.value.reply_text.endswith("Non empty binding 'key' key not permitted")
    channel = connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.exchange_bind("amq.fanout", exchange)
    assert closed.value.reply_text.endswith("Destination not found")
