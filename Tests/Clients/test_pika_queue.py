"""pika: arguments of queues that change what becomes of their messages."""

import time

import pika
import pytest

from inbox import Inbox, drain, wait_for


@pytest.fixture
def graveyard(channel, fresh):
    """A queue for dead letters, and the arguments that send them there."""
    name = fresh("dead")
    channel.queue_declare(name)
    return name, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name}


def declare(channel, fresh, arguments):
    name = fresh("queue")
    channel.queue_declare(name, arguments=arguments)
    return name


@pytest.mark.parametrize(
    "reason, arguments, expiration",
    [
        ("expired", {"x-message-ttl": 50}, None),
        ("expired", {}, "50"),
        ("maxlen", {"x-max-length": 0}, None),
    ],
)
def test_dead_letter_tells_why_it_died(channel, fresh, graveyard, reason, arguments, expiration):
    dead, to_graveyard = graveyard
    name = declare(channel, fresh, {**to_graveyard, **arguments})
    sent = pika.BasicProperties(message_id="m", expiration=expiration)
    channel.basic_publish("", name, b"body", sent)
    delivery = Inbox(channel, dead, auto_ack=True).wait(1)[0]
    headers = delivery.properties.headers
    assert delivery.body == b"body" and delivery.properties.message_id == "m"
    assert delivery.properties.expiration is None
    assert headers["x-first-death-reason"] == reason
    assert headers["x-first-death-queue"] == name
    death = headers["x-death"][0]
    assert (death["reason"], death["queue"], death["count"]) == (reason, name, 1)
    assert (death["exchange"], death["routing-keys"]) == ("", [name])
    assert death.get("original-expiration") == expiration


def test_rejected_message_is_dead_lettered(channel, fresh, graveyard):
    dead, to_graveyard = graveyard
    name = declare(channel, fresh, to_graveyard)
    channel.basic_publish("", name, b"body")
    channel.basic_reject(Inbox(channel, name).wait(1)[0].method.delivery_tag, requeue=False)
    delivery = Inbox(channel, dead, auto_ack=True).wait(1)[0]
    assert delivery.properties.headers["x-death"][0]["reason"] == "rejected"
    assert delivery.method.routing_key == dead


def test_deaths_are_counted(channel, fresh):
    """A message that is rejected, waits, and comes back: how retries with a delay are built."""
    work, waiting = fresh("work"), fresh("waiting")
    channel.queue_declare(
        work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": waiting}
    )
    channel.queue_declare(
        waiting,
        arguments={
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": work,
            "x-message-ttl": 20,
        },
    )
    channel.basic_publish("", work, b"body")
    inbox = Inbox(channel, work)
    for attempt in range(4):
        delivery = inbox.wait(attempt + 1)[attempt]
        deaths = (delivery.properties.headers or {}).get("x-death", [])
        counts = {(death["queue"], death["reason"]): death["count"] for death in deaths}
        expected = {(work, "rejected"): attempt, (waiting, "expired"): attempt} if attempt else {}
        assert counts == expected
        channel.basic_reject(delivery.method.delivery_tag, requeue=False)


def test_message_does_not_expire_early(channel, fresh):
    name = declare(channel, fresh, {"x-message-ttl": 60000})
    channel.basic_publish("", name, b"body")
    assert drain(channel, name, 1)[0].body == b"body"


def test_expired_messages_leave_no_gap(connection, channel, fresh):
    name = declare(channel, fresh, {})
    channel.basic_publish("", name, b"short", pika.BasicProperties(expiration="30"))
    channel.basic_publish("", name, b"long", pika.BasicProperties(expiration="60000"))
    started = time.monotonic()
    wait_for(connection, lambda: time.monotonic() > started + 0.1, 1, "expiry")
    assert drain(channel, name, 1)[0].body == b"long"


def test_full_queue_drops_its_oldest(channel, fresh):
    name = declare(channel, fresh, {"x-max-length": 3})
    for number in range(10):
        channel.basic_publish("", name, b"%d" % number)
    assert [d.body for d in drain(channel, name, 3)] == [b"7", b"8", b"9"]


def test_queue_limited_by_bytes_drops_its_oldest(channel, fresh):
    name = declare(channel, fresh, {"x-max-length-bytes": 250})
    for number in range(10):
        channel.basic_publish("", name, b"%d" % number * 100)
    assert [d.body[:1] for d in drain(channel, name, 2)] == [b"8", b"9"]


def test_higher_priority_comes_first(channel, fresh):
    name = declare(channel, fresh, {"x-max-priority": 10})
    channel.confirm_delivery()
    for priority in (1, 5, 10, 5, None, 1, 99):
        channel.basic_publish("", name, str(priority), pika.BasicProperties(priority=priority))
    expected = [b"10", b"99", b"5", b"5", b"1", b"1", b"None"]
    assert [d.body for d in drain(channel, name, 7)] == expected


def test_unused_queue_expires(connection, channel, fresh):
    name = declare(channel, fresh, {"x-expires": 100})
    started = time.monotonic()
    wait_for(connection, lambda: time.monotonic() > started + 0.3, 2, "expiry")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        connection.channel().queue_declare(name, passive=True)
    assert raised.value.reply_code == 404


def test_quorum_queue_works_and_counts_deliveries(channel, fresh):
    name = fresh("quorum")
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", name, b"body")
    inbox = Inbox(channel, name)
    first = inbox.wait(1)[0]
    assert "x-delivery-count" not in (first.properties.headers or {})
    channel.basic_reject(first.method.delivery_tag, requeue=True)
    second = inbox.wait(2)[1]
    assert second.method.redelivered and second.properties.headers["x-delivery-count"] == 1
    channel.basic_ack(second.method.delivery_tag)


def test_lazy_and_unknown_arguments_are_accepted(channel, fresh):
    name = declare(channel, fresh, {"x-queue-mode": "lazy", "my-own": "note"})
    channel.basic_publish("", name, b"body")
    assert drain(channel, name, 1)[0].body == b"body"
