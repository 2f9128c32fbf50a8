"""pika: opening, refusing, keeping and closing connections."""

import socket
import struct
import time

import amqp
import pika
import pytest

from inbox import Inbox


def idle(connection, seconds):
    """Serves the connection for a while during which nothing is published or asked for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.process_data_events(time_limit=until - time.monotonic())


def open_amqp(address, **options):
    """A connection of py-amqp, which leaves its socket and its heartbeats to the caller."""
    connection = amqp.Connection(
        f"{address.host}:{address.port}",
        address.user,
        address.password,
        virtual_host=address.vhost,
        **options,
    )
    connection.connect()
    return connection


def test_wrong_password_is_a_probable_authentication_error(connect):
    with pytest.raises(pika.exceptions.ProbableAuthenticationError) as raised:
        connect(credentials=pika.PlainCredentials("guest", "wrong"))
    assert "(403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" in repr(
        raised.value
    )


def test_unknown_user_is_a_probable_authentication_error(connect):
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(credentials=pika.PlainCredentials("nobody", "guest"))


def test_missing_virtual_host_is_refused(connect):
    with pytest.raises(pika.exceptions.AMQPConnectionError) as raised:
        connect(virtual_host="no such vhost")
    assert "NOT_ALLOWED" in repr(raised.value) and "no such vhost" in repr(raised.value)


def test_server_tells_its_capabilities(connection):
    assert connection.publisher_confirms_supported
    assert connection.exchange_exchange_bindings_supported
    assert connection.basic_nack_supported
    assert connection.consumer_cancel_notify_supported


def test_close_by_the_client_is_answered(connect):
    connection = connect()
    connection.channel()
    connection.close()
    assert connection.is_closed


def test_connection_error_closes_the_connection_with_its_code(connect):
    channel = connect().channel()
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as raised:
        channel.basic_qos(prefetch_size=1)
    assert raised.value.reply_code == 540
    assert raised.value.reply_text.startswith("NOT_IMPLEMENTED - prefetch_size!=0")


def test_closed_connection_leaves_others_alone(connect, channel, queue):
    broken = connect()
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker):
        broken.channel().basic_qos(prefetch_size=1)
    channel.basic_publish("", queue, b"body")
    assert Inbox(channel, queue).wait(1)[0].body == b"body"


# pika itself looks after the interval and five seconds more: it would give up in the first case.
@pytest.mark.parametrize("heartbeat, seconds", [(1, 6.5), (2, 5)])
def test_heartbeats_keep_an_idle_connection(connect, heartbeat, seconds):
    connection = connect(heartbeat=heartbeat)
    idle(connection, seconds)
    connection.channel().queue_declare("", exclusive=True)


def test_broker_sends_heartbeats(address):
    with open_amqp(address, heartbeat=1) as connection:
        assert connection.heartbeat == 1
        seen = connection.bytes_recv
        deadline = time.monotonic() + 10
        # Three frames of eight bytes, while nothing but heartbeats is exchanged.
        while connection.bytes_recv < seen + 3:
            assert time.monotonic() < deadline, "no heartbeats"
            connection.heartbeat_tick()
            try:
                # drain_events waits on while heartbeats come, so it is given less time than lies
                # between them: it would keep its own from being sent.
                connection.drain_events(timeout=0.1)
            except TimeoutError:
                pass


def test_silent_client_is_dropped(address):
    connection = open_amqp(address, heartbeat=1)
    started = time.monotonic()
    connection.sock.settimeout(10)
    try:
        while connection.sock.recv(4096):
            assert time.monotonic() < started + 10, "a client that sends no heartbeats is kept"
    except ConnectionResetError:
        pass
    connection.collect()
    assert time.monotonic() > started + 1


def test_heartbeat_of_0_is_none(connect):
    connection = connect(heartbeat=0)
    idle(connection, 1)
    connection.channel()


def test_callbacks_for_blocked_connections_are_accepted(connect, queue):
    connection = connect(blocked_connection_timeout=5)
    heard = []
    connection.add_on_connection_blocked_callback(lambda *_: heard.append("blocked"))
    connection.add_on_connection_unblocked_callback(lambda *_: heard.append("unblocked"))
    channel = connection.channel()
    for _ in range(100):
        channel.basic_publish("", queue, b"body")
    Inbox(channel, queue).wait(100)
    assert heard == []


def test_secret_can_be_updated(connection):
    connection.update_secret("guest", "renewal")
    connection.channel().queue_declare("", exclusive=True)


def test_client_properties_are_accepted(connect):
    connect(
        client_properties={"connection_name": "grün", "nested": {"list": [1, "two"]}, "n": 1 << 40}
    )


@pytest.mark.parametrize("header", [b"AMQP\x00\x00\x08\x00", b"AMQP\x01\x01\x00\x0a", b"GET / HT"])
def test_other_protocol_is_told_ours(address, header):
    with socket.create_connection((address.host, address.port), timeout=10) as plain:
        plain.sendall(header)
        assert plain.recv(8, socket.MSG_WAITALL) == b"AMQP\x00\x00\x09\x01"
        try:
            assert plain.recv(8) == b""
        except ConnectionResetError:
            pass


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">BHI", 1, 0, 0xFFFFFFF0) + b"x" * 64,
        b"\x09\x00\x00\x00\x00\x00\x00\xce",
        b"\xff" * 256,
    ],
)
def test_garbage_closes_its_connection_only(address, channel, queue, garbage):
    with socket.create_connection((address.host, address.port), timeout=20) as plain:
        plain.sendall(b"AMQP\x00\x00\x09\x01" + garbage)
        try:
            while plain.recv(4096):
                pass
        except ConnectionResetError:
            pass
    channel.basic_publish("", queue, b"body")
    assert Inbox(channel, queue).wait(1)[0].body == b"body"


def test_client_that_vanishes_releases_its_messages(address, channel, queue):
    channel.basic_publish("", queue, b"body")
    vanishing = open_amqp(address)
    received = []
    vanishing.channel().basic_consume(queue, callback=received.append)
    vanishing.drain_events(timeout=10)
    assert len(received) == 1
    # With a linger of 0 the close is a reset, as when the client's machine starts anew.
    vanishing.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    vanishing.collect()
    assert Inbox(channel, queue).wait(1)[0].method.redelivered
