"""Copies of what is published and delivered (Specs/Events.md)."""

import os

import pika
import pytest

from inbox import Inbox
from test_commands import run

pytestmark = pytest.mark.skipif(
    "MARTLET_TEST_URL" in os.environ, reason="another broker is switched by other means"
)

EXCHANGE = "amq.rabbitmq.trace"


@pytest.fixture
def traced(own_broker):
    """A broker that traces, and how to connect to it."""
    run("trace", "on", url=own_broker.url)
    opened = []

    def connect():
        opened.append(pika.BlockingConnection(pika.URLParameters(own_broker.url)))
        return opened[-1].channel()

    yield connect
    for connection in opened:
        connection.close()


def watch(channel, key="#"):
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EXCHANGE, key)
    return Inbox(channel, queue, auto_ack=True)


def test_a_message_is_seen_on_its_way(traced):
    traces = watch(traced())
    channel = traced()
    channel.exchange_declare("x", "fanout")
    for queue in ("q", "r"):
        channel.queue_declare(queue, exclusive=True)
        channel.queue_bind(queue, "x")
    properties = pika.BasicProperties(headers={"mine": 1}, priority=4, delivery_mode=1)
    channel.basic_publish("x", "k", b"hello", properties)
    channel.basic_get("q", auto_ack=True)
    consumed = Inbox(channel, "r")
    consumed.wait(1)
    first, got, delivered = traces.wait(3)
    assert [t.method.routing_key for t in (first, got, delivered)] == [
        "publish.x", "deliver.q", "deliver.r",
    ]
    assert all(trace.body == b"hello" for trace in (first, got, delivered))
    headers = first.properties.headers
    assert headers["exchange_name"] == "x" and headers["routing_keys"] == ["k"]
    assert sorted(headers["routed_queues"]) == ["q", "r"]
    assert headers["properties"] == {"headers": {"mine": 1}, "priority": 4, "delivery_mode": 1}
    assert headers["user"] == "guest" and headers["vhost"] == "/" and headers["channel"] == 1
    assert " -> " in headers["connection"] and headers["node"].startswith("martlet@")
    assert got.properties.headers["redelivered"] == 0
    channel.basic_nack(consumed.tags[0], requeue=True)
    assert traces.wait(4)[3].properties.headers["redelivered"] == 1


def test_all_of_many_messages_are_copied_in_order(traced):
    traces = watch(traced())
    channel = traced()
    channel.queue_declare("q", exclusive=True)
    Inbox(channel, "q", auto_ack=True)
    count = 5000
    for number in range(count):
        channel.basic_publish("", "q", str(number).encode())
    wanted = [str(number).encode() for number in range(count)]
    channel.connection.process_data_events(0)
    found = traces.wait(2 * count, seconds=40)
    for key in ("publish.", "deliver.q"):
        assert [t.body for t in found if t.method.routing_key == key] == wanted


def test_it_is_switched_off_and_over_after_a_restart(own_broker):
    url = own_broker.url
    assert run("trace", url=url)[0] == b"off\n"
    _, said = run("trace", "on", url=url)
    assert 'tracing of virtual host "/" is on' in said
    assert run("trace", url=url)[0] == b"on\n"
    run("trace", "off", url=url)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        traces = watch(channel)
        channel.basic_publish("", "nowhere", b"unseen")
        run("trace", "on", url=url)
        channel.basic_publish("", "nowhere", b"seen")
        seen = traces.wait(1)
        assert [t.body for t in seen if t.properties.headers["routing_keys"] == ["nowhere"]] == [
            b"seen"
        ]
    assert own_broker.stop() == 0
    own_broker.start()
    assert run("trace", url=url)[0] == b"off\n"


def test_mistakes_are_told(url):
    _, said = run("trace", "maybe", url=url, expect=2)
    assert "on, off or show" in said
