"""pika: mistakes that close a channel, with their reply code and text."""

import contextlib

import pika
import pytest

from inbox import Inbox


@contextlib.contextmanager
def refused(channel, code, text):
    """Expects that the broker closes the channel, and only the channel, for what the block does."""
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        yield
    assert raised.value.reply_code == code
    assert text in raised.value.reply_text
    assert channel.connection.is_open


def round_trip(channel):
    """Waits until the broker has seen everything that was sent on the channel."""
    channel.basic_qos(prefetch_count=1)


def test_publish_to_a_missing_exchange_is_404(channel, fresh):
    name = fresh()
    with refused(channel, 404, f"NOT_FOUND - no exchange '{name}' in vhost '/'"):
        channel.basic_publish(name, "key", b"body")
        round_trip(channel)


def test_passive_declaration_of_a_missing_queue_is_404(channel, fresh):
    name = fresh()
    with refused(channel, 404, f"NOT_FOUND - no queue '{name}' in vhost '/'"):
        channel.queue_declare(name, passive=True)


def test_passive_declaration_of_a_missing_exchange_is_404(channel, fresh):
    name = fresh()
    with refused(channel, 404, f"NOT_FOUND - no exchange '{name}' in vhost '/'"):
        channel.exchange_declare(name, passive=True)


def test_consuming_from_a_missing_queue_is_404(channel, fresh):
    name = fresh()
    with refused(channel, 404, f"NOT_FOUND - no queue '{name}' in vhost '/'"):
        channel.basic_consume(name, lambda *_: None)


def test_getting_from_a_missing_queue_is_404(channel, fresh):
    with refused(channel, 404, "NOT_FOUND - no queue"):
        channel.basic_get(fresh())


def test_purging_a_missing_queue_is_404(channel, fresh):
    with refused(channel, 404, "NOT_FOUND - no queue"):
        channel.queue_purge(fresh())


def test_binding_a_missing_queue_or_exchange_is_404(connection, fresh, queue):
    channel = connection.channel()
    with refused(channel, 404, "NOT_FOUND - no queue"):
        channel.queue_bind(fresh(), "amq.direct", "key")
    channel = connection.channel()
    with refused(channel, 404, "NOT_FOUND - no exchange"):
        channel.queue_bind(queue, fresh(), "key")


def test_exclusive_queue_is_405_for_another_connection(connect, channel, fresh):
    name = fresh("exclusive")
    channel.queue_declare(name, exclusive=True)
    intruder = connect()
    text = f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'"
    for attempt in (
        lambda other: other.queue_declare(name, exclusive=True),
        lambda other: other.queue_declare(name, passive=True),
        lambda other: other.basic_consume(name, lambda *_: None),
        lambda other: other.basic_get(name),
        lambda other: other.queue_bind(name, "amq.direct", "key"),
        lambda other: other.queue_purge(name),
        lambda other: other.queue_delete(name),
    ):
        other = intruder.channel()
        with refused(other, 405, text):
            attempt(other)
    channel.queue_declare(name, exclusive=True)


def test_other_connection_may_publish_to_an_exclusive_queue(connect, channel):
    name = channel.queue_declare("", exclusive=True).method.queue
    connect().channel().basic_publish("", name, b"body")
    assert Inbox(channel, name).wait(1)[0].body == b"body"


def test_exclusive_queue_goes_with_its_connection(connect, channel, fresh):
    name = fresh("exclusive")
    owner = connect()
    owner.channel().queue_declare(name, exclusive=True)
    owner.close()
    with refused(channel, 404, "NOT_FOUND - no queue"):
        channel.queue_declare(name, passive=True)


def test_auto_delete_queue_goes_with_its_last_consumer(connection, channel, fresh):
    name = fresh("auto-delete")
    channel.queue_declare(name, auto_delete=True)
    tags = [channel.basic_consume(name, lambda *_: None) for _ in range(2)]
    channel.basic_cancel(tags[0])
    channel.queue_declare(name, passive=True)
    channel.basic_cancel(tags[1])
    with refused(channel, 404, "NOT_FOUND - no queue"):
        channel.queue_declare(name, passive=True)


def test_second_consumer_beside_an_exclusive_one_is_403(connection, channel, queue):
    channel.basic_consume(queue, lambda *_: None, exclusive=True)
    other = connection.channel()
    with refused(other, 403, f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"):
        other.basic_consume(queue, lambda *_: None)


def test_declaring_a_queue_again_with_other_arguments_is_406(connection, channel, fresh):
    name = fresh()
    channel.queue_declare(name, durable=True, arguments={"x-message-ttl": 20000})
    channel.queue_declare(name, durable=True, arguments={"x-message-ttl": 20000})
    other = connection.channel()
    with refused(
        other,
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{name}' in "
        "vhost '/': received 'false' but current is 'true'",
    ):
        other.queue_declare(name, arguments={"x-message-ttl": 20000})
    other = connection.channel()
    # How RabbitMQ writes the values depends on its version; clients look for the argument.
    with refused(
        other,
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '{name}' "
        "in vhost '/': received ",
    ):
        other.queue_declare(name, durable=True, arguments={"x-message-ttl": 30000})
    other = connection.channel()
    with refused(
        other,
        406,
        f"inequivalent arg 'x-message-ttl' for queue '{name}' in vhost '/': received "
        "none but current is the value '20000' of type 'signedint'",
    ):
        other.queue_declare(name, durable=True)


def test_declaring_an_exchange_again_with_another_type_is_406(channel, fresh):
    name = fresh()
    channel.exchange_declare(name, "direct")
    with refused(
        channel,
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}' in "
        "vhost '/': received 'topic' but current is 'direct'",
    ):
        channel.exchange_declare(name, "topic")


@pytest.mark.parametrize("value", ["soon", -1])
def test_queue_argument_of_a_wrong_type_is_406(channel, fresh, value):
    name = fresh()
    with refused(
        channel,
        406,
        f"PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue '{name}' in vhost '/'",
    ):
        channel.queue_declare(name, arguments={"x-message-ttl": value})


def test_unknown_delivery_tag_is_406(connection, channel):
    for attempt in (
        lambda channel: channel.basic_ack(17),
        lambda channel: channel.basic_nack(17),
        lambda channel: channel.basic_reject(17),
        lambda channel: channel.basic_ack(17, multiple=True),
    ):
        channel = connection.channel()
        with refused(channel, 406, "PRECONDITION_FAILED - unknown delivery tag 17"):
            attempt(channel)
            round_trip(channel)


def test_acknowledging_twice_is_406(channel, queue):
    channel.basic_publish("", queue, b"body")
    tag = Inbox(channel, queue).wait(1)[0].method.delivery_tag
    channel.basic_ack(tag)
    with refused(channel, 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}"):
        channel.basic_ack(tag)
        round_trip(channel)


def test_deleting_a_queue_in_use_or_not_empty_is_406(connection, queue):
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"body")
    other = connection.channel()
    with refused(other, 406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"):
        other.queue_delete(queue, if_empty=True)
    channel.basic_consume(queue, lambda *_: None)
    other = connection.channel()
    with refused(other, 406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"):
        other.queue_delete(queue, if_unused=True)


def test_deleting_an_exchange_in_use_is_406(channel, queue, fresh):
    name = fresh()
    channel.exchange_declare(name, "fanout")
    channel.queue_bind(queue, name)
    with refused(channel, 406, f"PRECONDITION_FAILED - exchange '{name}' in vhost '/' in use"):
        channel.exchange_delete(name, if_unused=True)


def test_reserved_names_are_403(connection, queue):
    channel = connection.channel()
    with refused(
        channel, 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"
    ):
        channel.queue_declare("amq.mine")
    channel = connection.channel()
    with refused(
        channel, 403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix"
    ):
        channel.exchange_declare("amq.mine", "direct")
    channel = connection.channel()
    with refused(channel, 403, "ACCESS_REFUSED - operation not permitted on the default exchange"):
        channel.queue_bind(queue, "", "key")


def test_publish_to_an_internal_exchange_is_403(channel, fresh):
    name = fresh()
    channel.exchange_declare(name, "fanout", internal=True)
    with refused(
        channel, 403, f"ACCESS_REFUSED - cannot publish to internal exchange '{name}' in vhost '/'"
    ):
        channel.basic_publish(name, "key", b"body")
        round_trip(channel)


def test_user_id_of_somebody_else_is_406(channel, queue):
    with refused(
        channel,
        406,
        "PRECONDITION_FAILED - user_id property set to 'mallory' but authenticated "
        "user was 'guest'",
    ):
        channel.basic_publish("", queue, b"body", pika.BasicProperties(user_id="mallory"))
        round_trip(channel)


def test_invalid_expiration_is_406(channel, queue):
    with refused(channel, 406, "PRECONDITION_FAILED - invalid expiration 'soon'"):
        channel.basic_publish("", queue, b"body", pika.BasicProperties(expiration="soon"))
        round_trip(channel)


def test_error_leaves_the_other_channels_and_its_own_number_usable(connection, queue, fresh):
    bystander = connection.channel()
    inbox = Inbox(bystander, queue, auto_ack=True)
    for _ in range(3):
        broken = connection.channel(channel_number=17)
        with refused(broken, 404, "NOT_FOUND"):
            broken.queue_declare(fresh(), passive=True)
    bystander.basic_publish("", queue, b"still here")
    assert inbox.wait(1)[0].body == b"still here"


def test_error_returns_the_messages_of_its_channel(connection, channel, queue, fresh):
    channel.basic_publish("", queue, b"body")
    other = connection.channel()
    Inbox(other, queue).wait(1)
    with refused(other, 404, "NOT_FOUND"):
        other.queue_declare(fresh(), passive=True)
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert body == b"body" and method.redelivered
