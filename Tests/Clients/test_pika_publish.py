"""pika: publishing, getting, and what a message carries."""

from datetime import UTC, datetime
from decimal import Decimal

import pika
import pytest

from inbox import Inbox, drain


def test_message_published_to_the_default_exchange_is_got(channel, queue):
    channel.basic_publish("", queue, b"hello")
    inbox = Inbox(channel, queue, auto_ack=True)
    delivery = inbox.wait(1)[0]
    assert delivery.body == b"hello"
    assert delivery.method.exchange == ""
    assert delivery.method.routing_key == queue
    assert delivery.method.redelivered is False
    assert delivery.method.consumer_tag == inbox.tag


def test_get_tells_how_many_messages_remain(channel, queue):
    channel.confirm_delivery()
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    for number in range(3):
        method, _, body = channel.basic_get(queue, auto_ack=True)
        assert body == b"%d" % number
        assert method.message_count == 2 - number
        assert method.exchange == "" and method.routing_key == queue
    assert channel.basic_get(queue) == (None, None, None)


def test_got_message_that_is_not_acknowledged_returns_when_the_channel_closes(connection, queue):
    first = connection.channel()
    first.confirm_delivery()
    first.basic_publish("", queue, b"again")
    assert first.basic_get(queue)[0].redelivered is False
    first.close()
    method, _, body = connection.channel().basic_get(queue, auto_ack=True)
    assert body == b"again"
    assert method.redelivered is True


def test_every_property_arrives_as_it_was_sent(channel, queue):
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        delivery_mode=2,
        priority=7,
        correlation_id="correlation",
        reply_to="reply",
        expiration="60000",
        message_id="message",
        timestamp=1700000000,
        type="kind",
        user_id="guest",
        app_id="application",
        cluster_id="cluster",
        headers={
            "text": "grün",
            "bytes": b"\x00\xff",
            "small": 1,
            "negative": -40000,
            "large": 1 << 40,
            "yes": True,
            "no": False,
            "none": None,
            "list": [1, "two", [3]],
            "table": {"a": {"b": "c"}},
            "decimal": Decimal("1.25"),
            "time": datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC),
        },
    )
    channel.basic_publish("", queue, b"body", sent)
    received = drain(channel, queue, 1)[0].properties
    assert received == sent


def test_message_without_properties_has_none(channel, queue):
    channel.basic_publish("", queue, b"body")
    received = drain(channel, queue, 1)[0].properties
    assert received == pika.BasicProperties()


def test_messages_keep_their_order(channel, queue):
    bodies = [b"%d" % number for number in range(5000)]
    for body in bodies:
        channel.basic_publish("", queue, body)
    assert [delivery.body for delivery in drain(channel, queue, 5000, 30)] == bodies


def test_declaring_and_purging_tell_the_count(channel, queue):
    channel.confirm_delivery()
    for _ in range(10):
        channel.basic_publish("", queue, b"x")
    declared = channel.queue_declare(queue, passive=True).method
    assert (declared.queue, declared.message_count, declared.consumer_count) == (queue, 10, 0)
    assert channel.queue_purge(queue).method.message_count == 10
    assert channel.queue_delete(queue).method.message_count == 0


def test_deleting_tells_how_many_messages_went(channel, queue):
    channel.confirm_delivery()
    for _ in range(4):
        channel.basic_publish("", queue, b"x")
    assert channel.queue_delete(queue).method.message_count == 4
    assert channel.queue_delete(queue).method.message_count == 0


def test_server_names_a_queue(channel):
    name = channel.queue_declare("", exclusive=True).method.queue
    assert name.startswith("amq.gen-")
    assert name != channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", name, b"body")
    assert drain(channel, name, 1)[0].method.routing_key == name


@pytest.mark.parametrize("name", ["grün/é", "with space", "x" * 255, "a.b:c#*{}"])
def test_names_are_any_utf8_up_to_255_bytes(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.basic_publish("", name, b"body")
    assert drain(channel, name, 1)[0].body == b"body"


def test_transaction_publishes_at_commit_and_forgets_at_rollback(channel, queue):
    channel.tx_select()
    channel.basic_publish("", queue, b"forgotten")
    channel.tx_rollback()
    channel.basic_publish("", queue, b"kept")
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
    channel.tx_commit()
    assert channel.basic_get(queue, auto_ack=True)[2] == b"kept"
    assert channel.basic_get(queue)[0] is None
