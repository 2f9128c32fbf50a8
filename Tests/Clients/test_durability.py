"""What survives SIGKILL: everything that was confirmed, and nothing that was acknowledged."""

import contextlib

import pika
import pytest

from confirmed_publisher import ConfirmedPublisher
from inbox import Inbox, drain

PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture
def channel(own_broker):
    """Opens a channel on a connection of its own, again after every restart."""
    opened = []

    def open_channel():
        connection = pika.BlockingConnection(pika.URLParameters(own_broker.url))
        opened.append(connection)
        return connection.channel()

    yield open_channel
    for connection in opened:
        # One that a crash has broken learns of it only now.
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


@pytest.fixture
def crash(own_broker):
    """Kills the broker and starts it again."""

    def restart():
        own_broker.kill()
        own_broker.start()

    return restart


def publish(url, queue, bodies):
    publisher = ConfirmedPublisher(url, (("", queue, body) for body in bodies))
    assert publisher.run() is None
    assert len(publisher.confirmed) == len(bodies)


def test_confirmed_messages_survive_in_order(own_broker, channel, crash):
    bodies = [b"%d" % number for number in range(5000)]
    channel().queue_declare("durable", durable=True)
    publish(own_broker.url, "durable", bodies)
    crash()
    after = channel()
    assert after.queue_declare("durable", passive=True).method.message_count == 5000
    deliveries = drain(after, "durable", 5000, 30)
    assert [delivery.body for delivery in deliveries] == bodies
    assert all(delivery.properties.delivery_mode == 2 for delivery in deliveries)


def test_properties_and_body_survive(channel, crash):
    before = channel()
    before.queue_declare("durable", durable=True)
    before.confirm_delivery()
    properties = pika.BasicProperties(
        delivery_mode=2,
        headers={"a": [1, {"b": None}]},
        message_id="m",
        content_type="text/plain",
        priority=3,
        timestamp=1700000000,
    )
    large = bytes(range(256)) * 20000
    before.basic_publish("", "durable", b"", properties)
    before.basic_publish("", "durable", large, properties)
    crash()
    first, second = drain(channel(), "durable", 2, 20)
    assert (first.body, second.body) == (b"", large)
    assert first.properties == second.properties == properties


def test_acknowledged_messages_are_gone(own_broker, channel, crash):
    before = channel()
    before.queue_declare("durable", durable=True)
    publish(own_broker.url, "durable", [b"%d" % number for number in range(1000)])
    before.basic_qos(prefetch_count=500)
    inbox = Inbox(before, "durable")
    inbox.wait(500)
    for tag in inbox.tags[0:500:2]:
        before.basic_ack(tag)
    # A confirm that follows the acknowledgements on their channel promises that they are safe, too.
    before.confirm_delivery()
    before.basic_publish("", "durable", b"1000", PERSISTENT)
    crash()
    left = [*range(1, 500, 2), *range(500, 1001)]
    deliveries = drain(channel(), "durable", len(left), 20)
    # The acknowledgements made room for further messages, which the consumer may have got.
    delivered = {int(delivery.body) for delivery in deliveries if delivery.method.redelivered}
    assert [int(delivery.body) for delivery in deliveries] == left
    assert delivered >= set(range(1, 500, 2))


def test_exchanges_and_bindings_survive(channel, crash):
    before = channel()
    for kind in ("direct", "fanout", "topic", "headers"):
        before.exchange_declare(f"durable-{kind}", kind, durable=True)
        before.queue_declare(f"queue-{kind}", durable=True)
        before.queue_bind(f"queue-{kind}", f"durable-{kind}", "a.b", {"x-match": "all", "n": 1})
    before.exchange_declare("gate", "topic", durable=True)
    for kind in ("direct", "fanout", "topic", "headers"):
        before.exchange_bind(f"durable-{kind}", "gate", "a.#")
    before.queue_bind("queue-direct", "durable-direct", "unbound")
    before.queue_unbind("queue-direct", "durable-direct", "unbound")
    crash()
    after = channel()
    after.confirm_delivery()
    after.basic_publish(
        "gate", "a.b", b"body", pika.BasicProperties(headers={"n": 1}), mandatory=True
    )
    for kind in ("direct", "fanout", "topic", "headers"):
        drain(after, f"queue-{kind}", 1)
        after.exchange_declare(f"durable-{kind}", kind, durable=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        after.basic_publish("durable-direct", "unbound", b"body", mandatory=True)


def test_deleted_things_stay_deleted(channel, crash):
    before = channel()
    before.queue_declare("gone", durable=True)
    before.exchange_declare("gone", "fanout", durable=True)
    before.queue_declare("purged", durable=True)
    before.confirm_delivery()
    for name in ("gone", "purged"):
        before.basic_publish("", name, b"body", PERSISTENT)
    before.queue_purge("purged")
    before.queue_delete("gone")
    before.exchange_delete("gone")
    before.queue_declare("fence", durable=True)
    crash()
    after = channel()
    assert after.queue_declare("purged", passive=True).method.message_count == 0
    for probe in (
        lambda c: c.queue_declare("gone", passive=True),
        lambda c: c.exchange_declare("gone", passive=True),
    ):
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
            probe(channel())
        assert raised.value.reply_code == 404


def test_what_is_not_durable_does_not_survive(channel, crash):
    before = channel()
    before.queue_declare("durable", durable=True)
    before.queue_declare("transient")
    before.queue_declare("exclusive", exclusive=True, durable=True)
    before.exchange_declare("transient", "fanout")
    before.confirm_delivery()
    before.basic_publish("", "durable", b"transient", pika.BasicProperties(delivery_mode=1))
    before.basic_publish("", "durable", b"persistent", PERSISTENT)
    crash()
    assert [d.body for d in drain(channel(), "durable", 1)] == [b"persistent"]
    for probe in (
        lambda c: c.queue_declare("transient", passive=True),
        lambda c: c.queue_declare("exclusive", passive=True),
        lambda c: c.exchange_declare("transient", passive=True),
    ):
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
            probe(channel())
        assert raised.value.reply_code == 404


def test_committed_transaction_survives(channel, crash):
    before = channel()
    for name in ("first", "second"):
        before.queue_declare(name, durable=True)
    before.tx_select()
    for number in range(100):
        for name in ("first", "second"):
            before.basic_publish("", name, b"%d" % number, PERSISTENT)
    before.tx_commit()
    before.basic_publish("", "first", b"not committed", PERSISTENT)
    before.basic_qos(prefetch_count=1)
    crash()
    for name in ("first", "second"):
        assert [d.body for d in drain(channel(), name, 100)] == [
            b"%d" % number for number in range(100)
        ]


def test_orderly_stop_keeps_everything_too(own_broker, channel):
    channel().queue_declare("durable", durable=True)
    publish(own_broker.url, "durable", [b"%d" % number for number in range(1000)])
    Inbox(channel(), "durable").wait(1)
    assert own_broker.stop() == 0
    own_broker.start()
    deliveries = drain(channel(), "durable", 1000)
    assert [int(delivery.body) for delivery in deliveries] == list(range(1000))
    assert deliveries[0].method.redelivered


def test_several_crashes_in_a_row(own_broker, channel, crash):
    channel().queue_declare("durable", durable=True)
    for round_number in range(5):
        publish(own_broker.url, "durable", [b"%d" % (round_number * 100 + n) for n in range(100)])
        crash()
    crash()
    assert [int(d.body) for d in drain(channel(), "durable", 500)] == list(range(500))


def test_redelivered_is_remembered(own_broker, channel, crash):
    """A message that a client has got before the crash says so when it comes again."""
    channel().queue_declare("durable", durable=True)
    publish(own_broker.url, "durable", [b"%d" % number for number in range(100)])
    before = channel()
    before.basic_qos(prefetch_count=40)
    Inbox(before, "durable").wait(40)
    crash()
    deliveries = drain(channel(), "durable", 100)
    assert [int(delivery.body) for delivery in deliveries] == list(range(100))
    assert all(delivery.method.redelivered for delivery in deliveries[:40])
