"""pika: publisher confirms and returned messages."""

import pika
import pytest

from confirmed_publisher import ConfirmedPublisher
from inbox import Inbox, drain, wait_for


def test_confirmed_message_is_in_the_queue(channel, queue):
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"body", mandatory=True)
    assert channel.queue_declare(queue, passive=True).method.message_count == 1


def test_persistent_message_to_a_durable_queue_is_confirmed(channel, fresh):
    name = fresh("durable")
    channel.queue_declare(name, durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"body", pika.BasicProperties(delivery_mode=2), mandatory=True)
    assert channel.basic_get(name, auto_ack=True)[1].delivery_mode == 2


def test_mandatory_message_without_a_queue_is_unroutable(channel):
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError) as raised:
        channel.basic_publish("amq.direct", "nowhere", b"body", mandatory=True)
    returned = raised.value.messages[0]
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key) == ("amq.direct", "nowhere")
    assert returned.body == b"body"


def test_message_without_a_queue_is_confirmed_when_not_mandatory(channel):
    channel.confirm_delivery()
    channel.basic_publish("amq.direct", "nowhere", b"body")


def test_return_reaches_a_channel_without_confirms(connection, channel):
    returned = []
    channel.add_on_return_callback(
        lambda _channel, method, properties, body: returned.append(
            (method.reply_code, properties.message_id, body)
        )
    )
    channel.basic_publish(
        "", "no such queue", b"body", pika.BasicProperties(message_id="m"), mandatory=True
    )
    wait_for(connection, lambda: returned, 10, "returned message")
    assert returned == [(312, "m", b"body")]


def test_full_queue_that_rejects_publishes_is_a_nack(channel, fresh):
    name = fresh("full")
    channel.queue_declare(name, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    channel.basic_publish("", name, b"first")
    with pytest.raises(pika.exceptions.NackError):
        for _ in range(10):
            channel.basic_publish("", name, b"too many")


def test_many_outstanding_confirms_all_come(url, channel, fresh):
    name = fresh("durable")
    channel.queue_declare(name, durable=True)
    publisher = ConfirmedPublisher(url, (("", name, b"%d" % number) for number in range(2000)))
    assert publisher.run() is None
    assert publisher.confirmed == list(range(2000))
    assert [d.body for d in drain(channel, name, 2000)] == [b"%d" % n for n in range(2000)]


def test_confirm_follows_the_return_of_an_unroutable_message(url):
    messages = [("amq.direct", "nowhere", b"%d" % number) for number in range(20)]
    publisher = ConfirmedPublisher(url, iter(messages), mandatory=True)
    assert publisher.run() is None
    assert publisher.returned == [b"%d" % number for number in range(20)]
    assert publisher.confirmed == list(range(20))


def test_confirm_waits_for_no_consumer(channel, queue):
    channel.confirm_delivery()
    inbox = Inbox(channel, queue)
    for number in range(10):
        channel.basic_publish("", queue, b"%d" % number)
    inbox.wait(10)
