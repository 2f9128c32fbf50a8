"""Peers that do not speak AMQP, speak it wrongly, or stop in the middle of a word.

Each is told why or finds its socket closed, the log says who it was, and nobody else notices.
"""

import contextlib
import http.client
import random
import ssl
import struct

import pytest
from pika import spec

from raw_peer import PROTOCOL_HEADER, RawPeer, content, encode
from watched_broker import MEBI, Bystander, connections_allowed, eventually, serving

MEMORY_GROWTH_MAX = 32 * MEBI


@pytest.fixture
def broker(tmp_path):
    """A broker with a bystander, whose memory is about the same when the test is over."""
    with serving(tmp_path, "--handshake-timeout", "2s", "--log-level", "debug") as broker:
        with Bystander(broker):
            before = broker.resident()
            yield broker
        assert broker.resident_peak() < before + MEMORY_GROWTH_MAX
        assert not broker.lines("invariant")


def frame(kind, channel, size, payload=b"", end=b"\xce"):
    return struct.pack(">BHI", kind, channel, size) + payload + end


def client_hello():
    """What a TLS client says first."""
    context, incoming, outgoing = ssl.create_default_context(), ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


# Not a protocol header


@pytest.mark.parametrize(
    "greeting, story",
    [
        (random.Random(1).randbytes(100), "it begins with"),
        (bytes(1000), "it begins with"),
        (b"\n", "it begins with"),
        (random.Random(2).randbytes(300_000), "it begins with"),
        (client_hello(), "TLS"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP"),
        (b"AMQP\x00\x01\x00\x00", "version 0-1-0-0"),
        (b"AMQP\x03\x01\x00\x00", "version 3-1-0-0"),
    ],
    ids=["random", "zeros", "newline", "long", "TLS", "HTTP", "AMQP 1.0", "AMQP 1.0 SASL"],
)
def test_greeting_that_is_not_ours_is_answered_with_ours_and_closed(broker, greeting, story):
    with RawPeer(broker.url) as peer:
        with contextlib.suppress(ConnectionError):
            peer.send(greeting)
        assert peer.expect_end() in (PROTOCOL_HEADER, b"")
        broker.expect_line(peer.name, "does not speak AMQP 0-9-1", story)


def test_web_browser_finds_no_page_but_an_end(broker):
    web = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=10)
    web.request("GET", "/")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        web.getresponse()


def test_handshake_in_single_bytes_is_fine(broker):
    with RawPeer(broker.url) as peer:
        login = spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")
        for data, answer in [
            (PROTOCOL_HEADER, spec.Connection.Start),
            (encode(login), spec.Connection.Tune),
            (
                encode(spec.Connection.TuneOk(0, 0, 0)) + encode(spec.Connection.Open("/")),
                spec.Connection.OpenOk,
            ),
            (encode(spec.Channel.Open(), 1), spec.Channel.OpenOk),
        ]:
            for byte in data:
                peer.send(bytes([byte]))
            peer.expect(answer)


# Peers that stop


@pytest.mark.parametrize("said", [b"", b"A", PROTOCOL_HEADER[:7], PROTOCOL_HEADER])
def test_end_in_the_handshake_is_logged(broker, said):
    """Who only looks whether the port is open is no reason for a warning."""
    with RawPeer(broker.url) as peer:
        peer.send(said)
        peer.socket.shutdown(1)
        peer.expect_end()
        if said == PROTOCOL_HEADER:
            broker.expect_line(peer.name, "warning", "closed before it was open")
        else:
            broker.expect_line(peer.name, "debug", "left without a word")
            assert not broker.lines(peer.name, "warning")


def test_end_in_the_middle_of_a_frame_is_logged(broker):
    """A publish is cut at every byte: no piece of it is ever a message."""
    whole = content(1, "whole", 20, b"0123456789", b"0123456789")
    with RawPeer(broker.url).open() as watcher:
        watcher.ask(spec.Queue.Declare(queue="whole"), spec.Queue.DeclareOk, channel=1)
        names = []
        for size in range(len(whole)):
            with RawPeer(broker.url).open() as peer:
                names.append(peer.name)
                peer.send(whole[:size])
        for name in names:
            broker.expect_line(name, "closed", "the client is gone")
        method = spec.Queue.Declare(queue="whole", passive=True)
        assert watcher.ask(method, spec.Queue.DeclareOk, channel=1).message_count == 0


@pytest.mark.parametrize("said", [b"", PROTOCOL_HEADER[:4], PROTOCOL_HEADER])
def test_thousand_half_open_connections_are_closed_in_time(tmp_path, said):
    count = connections_allowed(1000)
    options = ("--handshake-timeout", "300ms", "--log-level", "debug")
    with serving(tmp_path, *options) as broker, Bystander(broker):
        before, descriptors = broker.resident(), broker.descriptors()
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(RawPeer(broker.url)) for _ in range(count)]
            for peer in peers:
                with contextlib.suppress(ConnectionError):
                    peer.send(said)
            for peer in peers:
                peer.expect_end()

            def all_are_told():
                log = "\n".join(broker.lines("it did not finish the handshake in time"))
                return all(peer.name in log for peer in peers)

            eventually(all_are_told, "line in the log for each")
        eventually(lambda: broker.descriptors() <= descriptors, "end of the sockets")
        assert broker.resident_peak() < before + 2 * MEMORY_GROWTH_MAX


# Frames that are wrong

# Clients that leave the overhead out of the count are let through, as with RabbitMQ.
OVERSIZED = frame(1, 1, 131072 + 1, bytes(1000))


@pytest.mark.parametrize(
    "said, code, story",
    [
        (OVERSIZED, 501, "larger than the negotiated frame_max"),
        (frame(1, 1, 0xFFFFFFFF, bytes(100)), 501, "larger than the negotiated frame_max"),
        (frame(3, 1, 0xFFFFFFFF, bytes(100)), 501, "larger than the negotiated frame_max"),
        (frame(9, 1, 0), 501, "unknown frame type 9"),
        (frame(1, 1, 4, b"\x00\x3c\x00\x0a", b"\x00"), 501, "frame end marker missing"),
        (frame(8, 1, 0), 505, "heartbeat"),
        (frame(1, 1, 3, bytes(3)), 502, "malformed"),
        (frame(1, 1, 5, b"\x00\x3c\x00\x0a\x00"), 502, "malformed"),
        (frame(1, 1, 4, b"\x00\x63\x00\x63"), 540, "method"),
        (encode(spec.Basic.Get(queue="q"), 77), 504, "channel"),
        (frame(3, 1, 5, b"12345"), 505, "body"),
        (frame(2, 1, 14, b"\x00\x3c" + bytes(12)), 505, "header"),
        (content(1, "q", 3, b"12345"), 501, "body"),
        (content(1, "q", 10) + encode(spec.Channel.Close(0, "", 0, 0), 1), 505, ""),
        (encode(spec.Connection.Start(), 0), 503, ""),
        (encode(spec.Channel.Open(), 0), 503, ""),
        (encode(spec.Channel.Open(), 1), 504, ""),
        (encode(spec.Channel.Open(), 2048), 530, "channel_max"),
    ],
)
def test_wrong_frame_closes_its_connection_with_a_code(broker, said, code, story):
    with RawPeer(broker.url).open() as peer:
        peer.send(said)
        assert story in peer.expect_close(code, hangs_up=code == 501)
        broker.expect_line(peer.name, "closed by the broker", str(code))


@pytest.mark.parametrize("said", [OVERSIZED, b"\xff" * 4096])
def test_wrong_frame_in_the_handshake_closes_its_connection(broker, said):
    with RawPeer(broker.url) as peer:
        peer.send(PROTOCOL_HEADER + said)
        peer.expect_close(501)
        broker.expect_line(peer.name, "closed by the broker", "501")


def test_frames_may_be_as_large_as_negotiated_and_no_larger(broker):
    with RawPeer(broker.url).open(frame_max=4096) as peer:
        peer.ask(spec.Queue.Declare(queue="small"), spec.Queue.DeclareOk, channel=1)
        largest = 4096
        peer.send(content(1, "small", largest, bytes(largest)))
        peer.ask(spec.Basic.Get(queue="small", no_ack=True), spec.Basic.GetOk, channel=1)
        peer.send(content(1, "small", largest + 1, bytes(largest + 1)))
        assert "frame_max 4096" in peer.expect_close(501, hangs_up=True)


def test_what_follows_a_mistake_is_ignored(broker):
    """Frames behind the mistake were on the way already; none of them has an effect."""
    with RawPeer(broker.url).open() as peer, RawPeer(broker.url).open() as other:
        other.ask(spec.Queue.Declare(queue="calm"), spec.Queue.DeclareOk, channel=1)
        peer.send(frame(9, 0, 0) + content(1, "calm", 1, b"1") * 100)
        with contextlib.suppress(ConnectionError):
            peer.expect_close(501)
        other.ask(spec.Basic.Get(queue="calm"), spec.Basic.GetEmpty, channel=1)


def test_random_frames_never_harm_the_broker(broker):
    """Conversations with a few bytes changed, and frames of a right shape around random bytes."""
    source = random.Random(20261121)
    methods = [encode(spec.Queue.Declare(queue="q"), 1), content(1, "q", 4, b"1234")]
    for _ in range(300):
        with RawPeer(broker.url).open() as peer:
            said = bytearray(b"".join(source.choices(methods, k=8)))
            for _ in range(source.randint(1, 6)):
                said[source.randrange(len(said))] = source.randrange(256)
            size = source.randint(0, 60)
            said += frame(source.choice([1, 2, 3]), 1, size, source.randbytes(size))
            with contextlib.suppress(ConnectionError):
                peer.send(bytes(said))
