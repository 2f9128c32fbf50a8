"""pika: requests and replies, by a queue of the caller's own and by direct reply-to."""

import pika
import pytest

from inbox import Inbox, wait_for

REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.fixture
def server(connect, queue):
    """Answers requests of the queue with their body in capitals."""
    connection = connect()
    channel = connection.channel()

    def answer(_channel, method, properties, body):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body.upper(), reply)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, answer)
    return connection


def ask(channel, queue, reply_to, count):
    for number in range(count):
        properties = pika.BasicProperties(reply_to=reply_to, correlation_id=str(number))
        channel.basic_publish("", queue, f"question {number}", properties)


def check_answers(connection, server, inbox, count):
    def served():
        server.process_data_events()
        return len(inbox.deliveries) >= count

    wait_for(connection, served, 10, "answers")
    answers = {int(d.properties.correlation_id): d.body for d in inbox.deliveries}
    assert answers == {number: b"QUESTION %d" % number for number in range(count)}


def test_replies_through_an_exclusive_queue(connection, channel, queue, server):
    callback_queue = channel.queue_declare("", exclusive=True).method.queue
    inbox = Inbox(channel, callback_queue, auto_ack=True)
    ask(channel, queue, callback_queue, 20)
    check_answers(connection, server, inbox, 20)


def test_replies_through_direct_reply_to(connection, channel, queue, server):
    inbox = Inbox(channel, REPLY_TO, auto_ack=True)
    ask(channel, queue, REPLY_TO, 20)
    check_answers(connection, server, inbox, 20)


def test_server_sees_an_address_that_works_only_for_the_caller(connect, channel, queue):
    replies = Inbox(channel, REPLY_TO, auto_ack=True)
    ask(channel, queue, REPLY_TO, 1)
    other = connect().channel()
    address = Inbox(other, queue, auto_ack=True).wait(1)[0].properties.reply_to
    assert address.startswith(REPLY_TO + ".")
    # Not mandatory: RabbitMQ before 4.2 delivers such a reply and calls it unroutable all the same.
    other.basic_publish("", address, b"reply")
    assert replies.wait(1)[0].body == b"reply"
    assert replies.deliveries[0].method.routing_key == address


def test_reply_to_a_caller_that_has_gone_is_unroutable(connect, channel, queue):
    caller = connect()
    channel_of_caller = caller.channel()
    Inbox(channel_of_caller, REPLY_TO, auto_ack=True)
    ask(channel_of_caller, queue, REPLY_TO, 1)
    address = Inbox(channel, queue, auto_ack=True).wait(1)[0].properties.reply_to
    caller.close()
    channel.confirm_delivery()
    channel.basic_publish("", address, b"reply")
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("", address, b"reply", mandatory=True)


def test_reply_consumer_that_would_acknowledge_is_406(channel):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=False)
    assert raised.value.reply_code == 406
    assert "reply consumer cannot acknowledge" in raised.value.reply_text


def test_direct_reply_to_without_a_consumer_is_406(channel, queue):
    ask(channel, queue, REPLY_TO, 1)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        channel.basic_qos(prefetch_count=1)
    assert raised.value.reply_code == 406
    assert "fast reply consumer does not exist" in raised.value.reply_text
