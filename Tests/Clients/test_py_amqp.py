"""py-amqp: basic use, both ways to log in, heartbeats, confirms."""

import time

import amqp
import pytest


@pytest.fixture
def open_connection(address, fresh):
    """Opens connections of py-amqp that the end of the test closes."""
    opened = []

    def open_one(**options):
        options = {"userid": address.user, "password": address.password, **options}
        connection = amqp.Connection(
            f"{address.host}:{address.port}",
            virtual_host=address.vhost,
            connect_timeout=10,
            read_timeout=20,
            **options,
        )
        connection.connect()
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


def receive(connection, received, count):
    deadline = time.monotonic() + 10
    while len(received) < count:
        connection.drain_events(timeout=max(0.01, deadline - time.monotonic()))


@pytest.mark.parametrize("method", ["PLAIN", "AMQPLAIN"])
def test_both_login_methods(open_connection, method):
    connection = open_connection(login_method=method)
    assert connection.connected
    assert connection.server_properties["capabilities"]["publisher_confirms"] is True
    connection.channel().queue_declare(exclusive=True)


@pytest.mark.parametrize("method", ["PLAIN", "AMQPLAIN"])
def test_wrong_password_is_refused(open_connection, method):
    with pytest.raises(amqp.AccessRefused) as raised:
        open_connection(password="wrong", login_method=method)
    assert raised.value.reply_code == 403
    assert f"mechanism {method}" in raised.value.reply_text


def test_publish_get_and_acknowledge(open_connection):
    channel = open_connection().channel()
    queue, messages, consumers = channel.queue_declare(exclusive=True)
    assert (messages, consumers) == (0, 0)
    channel.basic_publish(
        amqp.Message("grün", content_type="text/plain", application_headers={"n": 1.5}),
        routing_key=queue,
    )
    message = channel.basic_get(queue)
    assert (message.body, message.headers) == ("grün", {"n": 1.5})
    assert message.content_encoding.lower() == "utf-8"
    channel.basic_ack(message.delivery_tag)
    assert channel.basic_get(queue) is None


def test_consume_cancel_and_requeue(open_connection):
    connection = open_connection()
    channel = connection.channel()
    queue = channel.queue_declare(exclusive=True, auto_delete=False).queue
    channel.basic_qos(0, 5, False)
    for number in range(10):
        channel.basic_publish(amqp.Message(str(number)), routing_key=queue)
    received = []
    tag = channel.basic_consume(queue, callback=received.append)
    receive(connection, received, 5)
    for message in received[:5]:
        message.channel.basic_ack(message.delivery_tag)
    receive(connection, received, 10)
    channel.basic_cancel(tag)
    channel.basic_recover(requeue=True)
    again = [channel.basic_get(queue, no_ack=True) for _ in range(5)]
    assert [message.body for message in again] == ["5", "6", "7", "8", "9"]
    assert all(message.delivery_info["redelivered"] for message in again)


def test_exchanges_of_every_type(open_connection, fresh):
    channel = open_connection().channel()
    for kind in ("direct", "fanout", "topic", "headers"):
        name = fresh(kind)
        channel.exchange_declare(name, kind, auto_delete=False)
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, name, "key", arguments={"n": 1} if kind == "headers" else None)
        channel.basic_publish(amqp.Message("body", application_headers={"n": 1}), name, "key")
        assert channel.basic_get(queue, no_ack=True).body == "body"
        channel.queue_unbind(queue, name, "key", arguments={"n": 1} if kind == "headers" else None)
        channel.basic_publish(amqp.Message("body", application_headers={"n": 1}), name, "key")
        assert channel.basic_get(queue, no_ack=True) is None


def test_exchange_bindings(open_connection, fresh):
    channel = open_connection().channel()
    source, destination = fresh("source"), fresh("destination")
    channel.exchange_declare(source, "direct", auto_delete=False)
    channel.exchange_declare(destination, "fanout", auto_delete=False)
    channel.exchange_bind(destination, source, "key")
    queue = channel.queue_declare(exclusive=True).queue
    channel.queue_bind(queue, destination)
    channel.basic_publish(amqp.Message("body"), source, "key")
    assert channel.basic_get(queue, no_ack=True).body == "body"
    channel.exchange_unbind(destination, source, "key")
    channel.basic_publish(amqp.Message("body"), source, "key")
    assert channel.basic_get(queue, no_ack=True) is None


def test_confirmed_publish_waits_for_the_broker(open_connection):
    connection = open_connection(confirm_publish=True)
    channel = connection.channel()
    queue = channel.queue_declare(exclusive=True).queue
    for number in range(100):
        channel.basic_publish(amqp.Message(str(number), delivery_mode=2), routing_key=queue)
    assert channel.queue_declare(queue, passive=True).message_count == 100


def test_rejected_publish_is_a_nack(open_connection, fresh):
    connection = open_connection(confirm_publish=True)
    channel = connection.channel()
    queue = channel.queue_declare(
        fresh("full"),
        auto_delete=False,
        arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
    ).queue
    with pytest.raises(amqp.exceptions.MessageNacked):
        for _ in range(10):
            channel.basic_publish(amqp.Message("body"), routing_key=queue)


def test_unroutable_mandatory_message_is_returned(open_connection):
    connection = open_connection()
    channel = connection.channel()
    returned = []
    channel.events["basic_return"].add(lambda *details: returned.append(details))
    channel.basic_publish(amqp.Message("body"), routing_key="no such queue", mandatory=True)
    receive(connection, returned, 1)
    error, exchange, key, message = returned[0]
    assert (error.reply_code, exchange, key, message.body) == (312, "", "no such queue", "body")


def test_channel_errors_are_exceptions_of_their_own(open_connection, fresh):
    connection = open_connection()
    with pytest.raises(amqp.NotFound):
        connection.channel().queue_declare(fresh(), passive=True)
    with pytest.raises(amqp.PreconditionFailed):
        connection.channel().exchange_declare("amq.topic", "direct", durable=True)
    with pytest.raises(amqp.AccessRefused):
        connection.channel().queue_declare("amq.reserved")
    owner = open_connection().channel()
    name = owner.queue_declare(fresh(), exclusive=True).queue
    with pytest.raises(amqp.ResourceLocked):
        connection.channel().queue_declare(name, exclusive=True)
    connection.channel().queue_declare(exclusive=True)


def test_server_cancels_consumers_of_a_deleted_queue(open_connection, fresh):
    connection = open_connection()
    channel = connection.channel()
    queue = channel.queue_declare(fresh("queue"), auto_delete=False).queue
    cancelled = []
    tag = channel.basic_consume(queue, callback=lambda _: None, on_cancel=cancelled.append)
    connection.channel().queue_delete(queue)
    receive(connection, cancelled, 1)
    assert cancelled == [tag]


def test_heartbeats_keep_an_idle_connection(open_connection):
    connection = open_connection(heartbeat=2)
    until = time.monotonic() + 6
    while time.monotonic() < until:
        # Raises when the broker missed two heartbeats.
        connection.heartbeat_tick(rate=4)
        try:
            connection.drain_events(timeout=0.1)
        except TimeoutError:
            pass
    assert connection.channel().queue_declare(exclusive=True).queue


def test_purge_and_delete_count(open_connection, fresh):
    channel = open_connection(confirm_publish=True).channel()
    queue = channel.queue_declare(fresh("queue"), auto_delete=False).queue
    for _ in range(3):
        channel.basic_publish(amqp.Message("body"), routing_key=queue)
    assert channel.queue_purge(queue) == 3
    channel.basic_publish(amqp.Message("body"), routing_key=queue)
    assert channel.queue_delete(queue) == 1


def test_transactions(open_connection):
    channel = open_connection().channel()
    queue = channel.queue_declare(exclusive=True).queue
    channel.tx_select()
    channel.basic_publish(amqp.Message("forgotten"), routing_key=queue)
    channel.tx_rollback()
    channel.basic_publish(amqp.Message("kept"), routing_key=queue)
    channel.tx_commit()
    assert channel.basic_get(queue, no_ack=True).body == "kept"
    assert channel.basic_get(queue, no_ack=True) is None
