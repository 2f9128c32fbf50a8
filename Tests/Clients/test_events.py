"""What clients see of the broker's events (Specs/Events.md)."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pika
import pytest

from broker import binary, environment
from inbox import Inbox, drain

pytestmark = pytest.mark.skipif(
    "MARTLET_TEST_URL" in os.environ, reason="another broker may lack the plug-in for events"
)

EXCHANGE = "amq.rabbitmq.event"


class Listener:
    """Listens to events on a connection of its own, whose own coming and going it passes over."""

    def __init__(self, connection, key):
        self.channel = connection.channel()
        queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(queue, EXCHANGE, key)
        # Its own binding may be the first event.
        self.channel.queue_purge(queue)
        self.inbox = Inbox(self.channel, queue, auto_ack=True)

    def about(self, name, count):
        """The first `count` events with this value among their headers, as keys and headers."""
        deadline = time.monotonic() + 10
        while True:
            found = [
                (delivery.method.routing_key, delivery.properties.headers)
                for delivery in self.inbox.deliveries
                if name in delivery.properties.headers.values()
            ]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, [
                (d.method.routing_key, d.properties.headers) for d in self.inbox.deliveries
            ]
            self.channel.connection.process_data_events(0.05)


@pytest.fixture
def listen(connect):
    return lambda key: Listener(connect(), key)


def test_a_queue_comes_and_goes(listen, channel, fresh):
    events = listen("queue.*")
    name = fresh("q")
    channel.queue_declare(name, durable=True, arguments={"x-max-length": 7})
    channel.queue_delete(name)
    (created, what), (deleted, why) = events.about(name, 2)
    assert (created, deleted) == ("queue.created", "queue.deleted")
    assert what.pop("timestamp_in_ms") / 1000 == pytest.approx(time.time(), abs=10)
    assert what == {
        "name": name, "vhost": "/", "type": "classic", "durable": True, "auto_delete": False,
        "exclusive": False, "arguments": {"x-max-length": 7},
        "user_who_performed_action": "guest",
    }
    assert why["reason"] == "deleted"


def test_exchanges_and_bindings_come_and_go(listen, channel, fresh):
    events = listen("#")
    exchange, queue = fresh("x"), fresh("q")
    channel.exchange_declare(exchange, "topic", auto_delete=True)
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, exchange, "a.*")
    channel.queue_unbind(queue, exchange, "a.*")
    found = events.about(exchange, 4)
    assert sorted(key for key, _ in found) == [
        "binding.created", "binding.deleted", "exchange.created", "exchange.deleted",
    ]
    binding = next(headers for key, headers in found if key == "binding.created")
    assert binding["source_name"] == exchange and binding["source_kind"] == "exchange"
    assert binding["destination_name"] == queue and binding["destination_kind"] == "queue"
    assert binding["routing_key"] == "a.*" and binding["arguments"] == {}


def test_a_connection_comes_and_goes_with_what_it_had(listen, connect, fresh):
    events = listen("#")
    queue, tag = fresh("q"), fresh("tag")
    other = connect(client_properties={"connection_name": f"of {queue}"}, heartbeat=33)
    inside = other.channel()
    inside.queue_declare(queue, exclusive=True)
    inside.basic_qos(prefetch_count=5)
    inside.basic_consume(queue, print, consumer_tag=tag)
    (key, connection), = events.about(f"of {queue}", 1)
    assert key == "connection.created"
    name = connection["name"]
    assert name == connection["pid"] and " -> " in name
    assert connection["peer_host"] == "127.0.0.1"
    assert name == "{peer_host}:{peer_port} -> {host}:{port}".format(**connection)
    assert connection["user"] == "guest" and connection["vhost"] == "/"
    assert connection["auth_mechanism"] == "PLAIN" and connection["timeout"] == 33
    assert connection["client_properties"]["connection_name"] == f"of {queue}"
    assert connection["node"].startswith("martlet@")
    (_, consumer), = events.about(tag, 1)
    assert consumer["queue"] == queue and consumer["channel"] == f"{name} (1)"
    assert consumer["prefetch_count"] == 5 and consumer["ack_required"] is True
    other.close()
    about_queue = events.about(queue, 4)
    assert sorted(key for key, _ in about_queue) == [
        "consumer.created", "consumer.deleted", "queue.created", "queue.deleted",
    ]
    assert dict(about_queue)["queue.deleted"]["reason"] == "exclusive"
    closed = [key for key, _ in events.about(name, 5)]
    assert closed == [
        "user.authentication.success", "connection.created", "channel.created",
        "channel.closed", "connection.closed",
    ]


def test_a_login_that_is_refused_is_told(listen, url, fresh):
    events = listen("user.authentication.failure")
    name = fresh("nobody")
    parameters = pika.URLParameters(url)
    parameters.credentials = pika.PlainCredentials(name, "wrong")
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(parameters)
    (_, failure), = events.about(name, 1)
    assert failure["auth_mechanism"] == "PLAIN" and "ACCESS_REFUSED" in failure["error"]


def test_nobody_may_publish_an_event(channel):
    channel.basic_publish(EXCHANGE, "queue.created", b"")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.queue_declare("", exclusive=True)
    assert closed.value.reply_code == 403


def test_a_durable_queue_has_all_events_over_a_kill(own_broker):
    with pika.BlockingConnection(pika.URLParameters(own_broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("audit", durable=True)
        channel.queue_bind("audit", EXCHANGE, "queue.#")
        for number in range(200):
            channel.queue_declare(f"q{number}", durable=True)
        # When this is answered all that was told before is written as well.
        channel.confirm_delivery()
        channel.basic_publish(
            "", "audit", b"last", pika.BasicProperties(delivery_mode=2), mandatory=True
        )
        own_broker.kill()
        own_broker.start()
        # It learns only now that the broker was gone.
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()
    with pika.BlockingConnection(pika.URLParameters(own_broker.url)) as connection:
        channel = connection.channel()
        count = channel.queue_declare("audit", passive=True).method.message_count
        found = drain(channel, "audit", count)
        names = [d.properties.headers["name"] for d in found if d.properties.headers]
        assert names == [f"q{number}" for number in range(len(names))]
        # The last ones may not have been told when the broker was killed.
        assert len(names) >= 199 and found[len(names) - 1].properties.delivery_mode == 2


def test_a_storm_of_connections_is_told_whole(own_broker):
    with pika.BlockingConnection(pika.URLParameters(own_broker.url)) as connection:
        events = Listener(connection, "connection.*")
        for _ in range(300):
            pika.BlockingConnection(pika.URLParameters(own_broker.url)).close()
        found = [
            (delivery.method.routing_key, delivery.properties.headers["name"])
            for delivery in events.inbox.wait(600)
        ]
        opened = [name for key, name in found if key == "connection.created"]
        closed = [name for key, name in found if key == "connection.closed"]
        assert len(opened) == 300 and sorted(opened) == sorted(closed)


def test_the_command_line_watches(url, channel, fresh):
    name = fresh("q")
    watching = subprocess.Popen(
        [
            str(binary()), "subscribe", "--url", url, "--exchange", EXCHANGE,
            "--key", "queue.created", "--filter", f"name = '{name}'", "--format", "json",
            "--count", "1",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )
    try:
        assert b"subscribed" in watching.stderr.readline()
        channel.queue_declare(name)
        out, _ = watching.communicate(timeout=20)
        event = json.loads(out)
        assert event["key"] == "queue.created" and event["headers"]["name"] == name
    finally:
        if watching.poll() is None:
            watching.send_signal(signal.SIGKILL)
            watching.wait()
