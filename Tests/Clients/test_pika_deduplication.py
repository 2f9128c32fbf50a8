"""pika: exchanges and queues that drop repeated messages."""

import contextlib
import os

import pika
import pytest

from inbox import drain

pytestmark = pytest.mark.skipif(
    "MARTLET_TEST_URL" in os.environ, reason="another broker may not look for repeated messages"
)

HEADER = "x-deduplication-header"


def properties(value=None, header=HEADER, **others):
    headers = {} if value is None else {header: value}
    return pika.BasicProperties(headers={**headers, **others}, delivery_mode=2)


def publish(channel, exchange, body, value=None, **others):
    channel.basic_publish(exchange, "k", body.encode(), properties(value, **others))


def bodies(channel, queue, count):
    return [delivery.body.decode() for delivery in drain(channel, queue, count)]


def declare(channel, fresh, place, durable=False, **arguments):
    exchange, queue = fresh("x"), fresh("q")
    asks = {"x-message-deduplication": True, **arguments}
    channel.exchange_declare(
        exchange, "topic", durable=durable, arguments=asks if place == "exchange" else None
    )
    channel.queue_declare(
        queue, durable=durable, arguments=asks if place == "queue" else None
    )
    channel.queue_bind(queue, exchange, "#")
    return exchange, queue


@pytest.mark.parametrize("place", ["exchange", "queue"])
def test_what_is_repeated_is_dropped_and_confirmed(channel, fresh, place):
    exchange, queue = declare(channel, fresh, place)
    channel.confirm_delivery()
    for number, value in enumerate(["a", "b", "a", 7, 7, None, None]):
        publish(channel, exchange, str(number), value)
    assert bodies(channel, queue, 5) == ["0", "1", "3", "5", "6"]


@pytest.mark.parametrize("place", ["exchange", "queue"])
def test_size_and_header_are_arguments(channel, fresh, place):
    exchange, queue = declare(
        channel, fresh, place, **{"x-cache-size": 2, "x-deduplication-header": "id"}
    )
    channel.confirm_delivery()
    for number, value in enumerate(["a", "b", "a", "c", "a"]):
        publish(channel, exchange, str(number), value, header="id")
    assert bodies(channel, queue, 4) == ["0", "1", "3", "4"]


def test_the_type_of_the_plugin_is_there(channel, fresh):
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(
        exchange, "x-message-deduplication", arguments={"x-cache-size": "5", "x-cache-ttl": 60000}
    )
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, exchange)
    for number, value in enumerate(["a", "a", "b"]):
        publish(channel, exchange, str(number), value)
    assert bodies(channel, queue, 2) == ["0", "2"]


def test_a_mandatory_message_that_an_exchange_drops_comes_back(channel, fresh):
    exchange, queue = declare(channel, fresh, "exchange")
    channel.confirm_delivery()
    channel.basic_publish(exchange, "k", b"1", properties("a"), mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError) as unroutable:
        channel.basic_publish(exchange, "k", b"2", properties("a"), mandatory=True)
    assert [returned.body for returned in unroutable.value.messages] == [b"2"]
    assert bodies(channel, queue, 1) == ["1"]


def test_a_size_of_nothing_is_refused(channel, fresh):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.exchange_declare(
            fresh("x"), "x-message-deduplication", arguments={"x-cache-size": 0}
        )
    assert closed.value.reply_code == 406
    assert closed.value.reply_text == (
        "PRECONDITION_FAILED - Missing or invalid argument,"
        " 'x-cache-size' must be an integer greater than 0"
    )


@pytest.mark.parametrize("place", ["exchange", "queue"])
def test_what_was_seen_is_known_after_a_kill(own_broker, place):
    def fresh(prefix):
        return f"{prefix}-kept"

    connection = pika.BlockingConnection(pika.URLParameters(own_broker.url))
    channel = connection.channel()
    channel.confirm_delivery()
    exchange, queue = declare(channel, fresh, place, durable=True)
    publish(channel, exchange, "1", "a")
    own_broker.kill()
    own_broker.start()
    # It learns only now that the broker was gone.
    with contextlib.suppress(pika.exceptions.AMQPError):
        connection.close()
    with pika.BlockingConnection(pika.URLParameters(own_broker.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        publish(channel, exchange, "2", "a")
        publish(channel, exchange, "3", "b")
        assert bodies(channel, queue, 2) == ["1", "3"]
