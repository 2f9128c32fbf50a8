"""Peers that ask for much and take or give little: memory stays bounded, and others are served."""

import contextlib
import time

import pika
import pytest
from pika import spec

from raw_peer import PROTOCOL_HEADER, RawPeer, content, encode
from watched_broker import MEBI, Bystander, connections_allowed, eventually, serving

CHANNELS = 2047


@pytest.fixture
def broker(tmp_path):
    """A broker that keeps little in memory of what is on disk."""
    with serving(tmp_path, "--journal-cache", "8MiB") as broker:
        yield broker


def pipelined(*methods, channel=1):
    return b"".join(encode(method, channel) for method in methods)


def declare(peer, queue, **options):
    return peer.ask(spec.Queue.Declare(queue=queue, **options), spec.Queue.DeclareOk, channel=1)


def fill(broker, queue, count, size):
    """A durable queue with that many persistent messages."""
    with RawPeer(broker.url).open() as peer:
        declare(peer, queue, durable=True)
        peer.ask(spec.Confirm.Select(), spec.Confirm.SelectOk, channel=1)
        for _ in range(count):
            peer.send(content(1, queue, size, bytes(size), persistent=True))
        while peer.expect(spec.Basic.Ack).delivery_tag < count:
            pass


# Slow readers


def test_consumer_that_does_not_read_gets_no_more_than_a_buffer(broker):
    """200 MB wait for it. What it has not taken comes to another consumer."""
    fill(broker, "backlog", 2000, 100_000)
    with Bystander(broker), RawPeer(broker.url, receive_buffer=4096).open() as sleeper:
        before = broker.resident()
        sleeper.say(spec.Basic.Consume(queue="backlog", no_ack=False), channel=1)
        with RawPeer(broker.url).open() as watcher:
            eventually(
                lambda: declare(watcher, "backlog", passive=True).message_count < 2000,
                "deliveries to the consumer that does not read",
            )
            assert declare(watcher, "backlog", passive=True).message_count > 1800
            watcher.say(spec.Basic.Consume(queue="backlog", no_ack=True), channel=1)
            for _ in range(1500):
                watcher.expect(spec.Basic.Deliver)
        assert broker.resident() < before + 48 * MEBI
        sleeper.reset()
        broker.expect_line(sleeper.name, "closed")
    with RawPeer(broker.url).open() as watcher:
        assert declare(watcher, "backlog", passive=True).consumer_count == 0


def test_consumer_that_neither_reads_nor_beats_is_dropped(broker):
    fill(broker, "backlog", 200, 100_000)
    with Bystander(broker), RawPeer(broker.url, receive_buffer=4096).open(heartbeat=1) as sleeper:
        sleeper.say(spec.Basic.Consume(queue="backlog"), channel=1)
        broker.expect_line(sleeper.name, "closed", "2 seconds", seconds=8)
        with RawPeer(broker.url).open() as watcher:
            answer = declare(watcher, "backlog", passive=True)
            assert (answer.message_count, answer.consumer_count) == (200, 0)


def test_consumer_that_beats_and_does_not_read_costs_a_buffer_only(broker):
    fill(broker, "backlog", 1000, 100_000)
    with Bystander(broker) as bystander:
        before = broker.resident()
        with RawPeer(broker.url, receive_buffer=4096).open(heartbeat=1) as sleeper:
            sleeper.say(spec.Basic.Consume(queue="backlog", no_ack=True), channel=1)
            until = time.monotonic() + 4
            while time.monotonic() < until:
                with contextlib.suppress(ConnectionError):
                    sleeper.send(b"\x08\x00\x00\x00\x00\x00\x00\xce")
                bystander.expect_progress()
        assert broker.resident() < before + 32 * MEBI


@pytest.mark.parametrize(
    "request_of",
    [
        lambda n: spec.Basic.Get(queue="backlog", no_ack=True),
        lambda n: spec.Basic.Get(queue="backlog", no_ack=False),
        lambda n: spec.Basic.Get(queue="empty"),
        lambda n: spec.Queue.Declare(queue="empty"),
        lambda n: spec.Queue.Declare(queue=f"queue-{n % 1000}"),
        lambda n: spec.Exchange.Declare(exchange=f"exchange-{n % 1000}"),
        lambda n: spec.Basic.Qos(prefetch_count=1),
        lambda n: spec.Queue.Purge(queue="empty"),
    ],
    ids=["get", "get-ack", "get-empty", "redeclare", "declare", "exchange", "qos", "purge"],
)
def test_requests_whose_answers_are_not_read_wait(broker, request_of):
    """Requests are no longer taken when too many answers wait."""
    fill(broker, "backlog", 300, 100_000)
    count = 60_000
    data = pipelined(*(request_of(number) for number in range(1000))) * (count // 1000)
    with Bystander(broker), RawPeer(broker.url, receive_buffer=4096).open() as peer:
        declare(peer, "empty")
        before = broker.resident()
        sent = peer.say_while_heard(data, 0.5)
        assert broker.resident_peak() < before + 64 * MEBI
        peer.reset()
        broker.expect_line(peer.name, "closed")
    assert sent > 0


def test_answers_come_in_order_after_a_long_time_without_reading(broker):
    turn = pipelined(*(spec.Queue.Declare(queue=f"queue-{number}") for number in range(500)))
    with Bystander(broker), RawPeer(broker.url, receive_buffer=4096).open() as peer:
        sent = peer.say_while_heard(turn * 80, 0.5)
        for _ in range(sent // len(turn)):
            for number in range(500):
                assert peer.expect(spec.Queue.DeclareOk).queue == f"queue-{number}"


# Large promises


def test_announced_bodies_take_no_memory_before_they_come(broker):
    """100 MiB on each of 50 channels, of which a little comes."""
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        declare(peer, "promises")
        before = broker.resident()
        for channel in range(2, 52):
            peer.ask(spec.Channel.Open(), spec.Channel.OpenOk, channel=channel)
            peer.send(content(channel, "promises", 100 * MEBI, bytes(1000), bytes(1000)))
        # The last one stops in the middle of a frame.
        peer.ask(spec.Queue.Declare(queue="other"), spec.Queue.DeclareOk, channel=1)
        peer.send(content(1, "promises", 100 * MEBI, bytes(100_000))[:-50_000])
        with RawPeer(broker.url).open() as watcher:
            assert declare(watcher, "promises", passive=True).message_count == 0
        assert broker.resident_peak() < before + 16 * MEBI
        peer.reset()
        broker.expect_line(peer.name, "closed")


def test_message_above_the_limit_closes_its_channel_only(tmp_path):
    with serving(tmp_path, "--message-size-max", "1MiB") as broker, Bystander(broker):
        with RawPeer(broker.url).open() as peer:
            peer.send(content(1, "any", MEBI + 1, bytes(1000)))
            close = peer.hear().method
            assert (close.NAME, close.reply_code) == ("Channel.Close", 406)
            assert str(MEBI + 1) in close.reply_text and str(MEBI) in close.reply_text
            peer.say(spec.Channel.CloseOk(), spec.Channel.Open(), channel=1)
            peer.expect(spec.Channel.OpenOk)
            broker.expect_line(peer.name, "channel 1 closed by the broker", "406")


def test_unfinished_messages_of_one_connection_have_a_limit_together(tmp_path):
    with serving(tmp_path, "--message-size-max", "1MiB") as broker, Bystander(broker):
        with RawPeer(broker.url).open() as peer:
            piece = bytes(100_000)
            for channel in range(2, 52):
                peer.say(spec.Channel.Open(), channel=channel)
                with contextlib.suppress(ConnectionError):
                    peer.send(content(channel, "any", MEBI, piece))
            assert "unfinished messages" in peer.expect_close(506)
            broker.expect_line(peer.name, "closed by the broker", "506")


# Many of everything


def test_peer_with_all_channels_vanishes_and_all_is_given_back(broker):
    """A consumer on each of 2047 channels, each with a message; then a reset."""
    with Bystander(broker), RawPeer(broker.url).open() as watcher:
        declare(watcher, "shared")
        declare(watcher, "leaving", auto_delete=True)
        watcher.send(content(1, "shared", 4, b"body") * CHANNELS)
        descriptors = broker.descriptors()
        for _ in range(3):
            peer = RawPeer(broker.url).open()
            peer.ask(spec.Queue.Declare(queue="own", exclusive=True), spec.Queue.DeclareOk, 1)
            others = range(2, CHANNELS + 1)
            peer.send(b"".join(encode(spec.Channel.Open(), channel) for channel in others))
            consume = pipelined(
                spec.Basic.Qos(prefetch_count=1),
                spec.Basic.Consume(queue="shared"),
                spec.Basic.Consume(queue="leaving"),
            )
            for channel in range(1, CHANNELS + 1):
                peer.send(consume.replace(b"\x01\x00\x01", b"\x01" + channel.to_bytes(2, "big")))
            for _ in range(CHANNELS):
                peer.expect(spec.Basic.Deliver)
            eventually(
                lambda: declare(watcher, "shared", passive=True).consumer_count == CHANNELS,
                "consumers",
            )
            assert declare(watcher, "shared", passive=True).message_count == 0
            peer.reset()
            broker.expect_line(peer.name, "closed")
            # They come back in slices between turns.
            eventually(
                lambda: (
                    (answer := declare(watcher, "shared", passive=True)).message_count == CHANNELS
                    and answer.consumer_count == 0
                ),
                "return of all deliveries",
            )
            assert broker.descriptors() <= descriptors
            # The names of queues that went with it are free again: no argument is told to differ.
            for name in ("own", "leaving"):
                assert declare(watcher, name).consumer_count == 0
                watcher.ask(spec.Queue.Delete(queue=name), spec.Queue.DeleteOk, 1)
            declare(watcher, "leaving", auto_delete=True)


def test_ten_thousand_queues_come_and_go(broker):
    names = [f"queue-{number}" for number in range(10_000)]
    sizes = []
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        for _ in range(3):
            for method, answer in (
                (lambda name: spec.Queue.Declare(queue=name), spec.Queue.DeclareOk),
                (lambda name: spec.Queue.Delete(queue=name), spec.Queue.DeleteOk),
            ):
                for start in range(0, len(names), 500):
                    peer.send(pipelined(*map(method, names[start : start + 500])))
                    for _ in range(500):
                        peer.expect(answer)
            sizes.append(broker.resident())
        assert sizes[2] < sizes[0] + 16 * MEBI, sizes
        peer.say(spec.Queue.Declare(queue=names[-1], passive=True), channel=1)
        assert peer.hear().method.reply_code == 404


@pytest.mark.parametrize("is_opened", [False, True], ids=["bare", "opened"])
def test_thousands_of_connections_at_once_come_and_go(broker, is_opened):
    count = connections_allowed(5000)
    with Bystander(broker):
        before, descriptors = broker.resident(), broker.descriptors()
        peers = [RawPeer(broker.url) for _ in range(count)]
        if is_opened:
            greet(peers)
        eventually(lambda: broker.descriptors() > count, "all of the sockets", 20)
        assert broker.resident() < before + count * 32768
        for peer in peers:
            peer.reset()
        eventually(lambda: broker.descriptors() <= descriptors, "end of the sockets", 20)


def greet(peers):
    """Opens the virtual host for all of them at the same time, and a queue for each."""
    login = spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")
    said = (
        encode(login)
        + encode(spec.Connection.TuneOk(0, 0, 0))
        + encode(spec.Connection.Open("/"))
        + pipelined(spec.Channel.Open(), spec.Queue.Declare(exclusive=True))
    )
    for peer in peers:
        peer.send(b"AMQP\x00\x00\x09\x01")
    for peer in peers:
        peer.send(said)
    for peer in peers:
        peer.expect(spec.Queue.DeclareOk)


def test_connections_that_come_and_go_leave_nothing(broker):
    with Bystander(broker):
        sizes = []
        descriptors = broker.descriptors()
        for _ in range(3):
            for _ in range(300):
                with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
                    connection.channel().queue_declare("", exclusive=True)
            sizes.append(broker.resident())
        assert sizes[2] < sizes[0] + 2 * MEBI, sizes
        eventually(lambda: broker.descriptors() <= descriptors, "end of the sockets")


def test_unfinished_logins_take_little_memory_together(tmp_path):
    """Each could keep 64 KiB; those who are in and those who log in do not feel it."""
    count = connections_allowed(3000)
    with serving(tmp_path, "--log-level", "error") as broker, Bystander(broker):
        before = broker.resident()
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                peer = stack.enter_context(RawPeer(broker.url))
                with contextlib.suppress(ConnectionError):
                    peer.send(PROTOCOL_HEADER + b"\1\0\0\0\0\xea\x60" + bytes(59_000))
            assert broker.resident_peak() < before + 40 * MEBI
            # A login with a token of 20 KiB, in pieces.
            with RawPeer(broker.url) as peer:
                peer.send(PROTOCOL_HEADER)
                peer.expect(spec.Connection.Start)
                login = encode(
                    spec.Connection.StartOk(
                        {"token": "t" * 20_000}, "PLAIN", "\0guest\0guest", "en_US"
                    )
                )
                peer.send(login[:15_000])
                peer.send(login[15_000:])
                peer.expect(spec.Connection.Tune)
        eventually(lambda: broker.resident() < before + 24 * MEBI, "memory that is given back")
