"""The attacks. What stands before the first `yield` of each prepares it and is not measured."""

import resource
import struct
import threading
import time

from frames import (
    bind_exchange,
    bind_queue,
    consume,
    declare_exchange,
    declare_queue,
    frame,
    long,
    method,
    publish,
    short,
    start_ok,
    table,
)
from peer import Peer, Refused

ATTACKS = {}


def attack(name, *options, stalls_log=False):
    def note(function):
        ATTACKS[name] = (function, options, stalls_log)
        return function

    return note


class Setting:
    """Where an attack is made, and how far it may go."""

    def __init__(self, port, seconds, scale):
        self.port = port
        self.seconds = seconds
        self.scale = scale
        self.until = None

    def peer(self, **options):
        return Peer(self.port, **options).open()

    def count(self, full):
        return max(1, int(full * self.scale))

    def rounds(self, most):
        """Numbers until the count or the time is at its end."""
        for number in range(most):
            if time.monotonic() > self.until:
                return
            yield number


def in_pieces(peer, pieces, at_once=500):
    """Says many things in few writes, and waits until they are done."""
    batch = []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == at_once:
            peer.send(b"".join(batch))
            batch.clear()
    peer.send(b"".join(batch))
    peer.settle()


def flags(count, prefix="k"):
    return {f"{prefix}{number:04}": True for number in range(count)}


@attack("headers-long")
def headers_long(setting):
    """10 bindings of 10,000 arguments, messages of as many headers."""
    peer = setting.peer()
    count = setting.count(10_000)
    peer.send(declare_exchange("h", "headers") + declare_queue("q"))
    for number in range(10):
        arguments = table({**flags(count), "x-match": "all", f"z{number}": True})
        peer.send(bind_queue("q", "h", arguments=arguments))
    message = publish("h", "", b"b", headers=flags(count))
    yield
    for _ in setting.rounds(20):
        peer.send(message)
        peer.settle()


@attack("headers-many")
def headers_many(setting):
    """500 bindings of 200 arguments, messages of 200 headers."""
    peer = setting.peer()
    peer.send(declare_exchange("h", "headers") + declare_queue("q"))
    for number in range(setting.count(500)):
        peer.send(bind_queue("q", "h", arguments=table({**flags(200), f"z{number}": True})))
    message = publish("h", "", b"b", headers=flags(200))
    peer.settle()
    yield
    for _ in setting.rounds(200):
        peer.send(message)
        peer.settle()


def all_out(setting, full):
    """A connection that has so many unacknowledged deliveries of one queue."""
    count = setting.count(full)
    peer = setting.peer()
    peer.send(declare_queue("q"))
    in_pieces(peer, [publish("", "q", b"b") * 100] * (count // 100))
    peer.send(consume("q", "t"))
    peer.deliveries(count // 100 * 100)
    return peer, count // 100 * 100


@attack("close-channel")
def close_channel(setting):
    """A channel closes with a million deliveries out."""
    peer, _ = all_out(setting, 1_000_000)
    yield
    peer.send(method(1, 20, 40, b"\0\0\0" + b"\0" * 4))
    peer.expect(20, 41)


@attack("close-connection")
def close_connection(setting):
    """A connection vanishes with a million deliveries out."""
    peer, count = all_out(setting, 1_000_000)
    other = setting.peer()
    yield
    peer.end()
    other.send(consume("q", "t"))
    other.deliveries(count)


@attack("nack-all")
def nack_all(setting):
    """A million deliveries are returned by one nack."""
    peer, count = all_out(setting, 1_000_000)
    peer.send(method(1, 60, 30, short("t") + b"\0"))
    yield
    peer.send(method(1, 60, 120, struct.pack(">QB", count, 3)))
    peer.settle()


@attack("nack-ascending")
def nack_ascending(setting):
    """A million deliveries are returned one by one, the oldest first."""
    peer, count = all_out(setting, 1_000_000)
    peer.send(method(1, 60, 30, short("t") + b"\0"))
    nacks = [method(1, 60, 120, struct.pack(">QB", tag, 2)) for tag in range(1, count + 1)]
    yield
    for start in setting.rounds(count // 1000):
        peer.send(b"".join(nacks[start * 1000 : start * 1000 + 1000]))
    peer.settle()


@attack("recover")
def recover(setting):
    """A million deliveries are returned by recover, and come again."""
    peer, count = all_out(setting, 1_000_000)
    yield
    peer.send(method(1, 60, 110, b"\1"))
    peer.deliveries(count)


def many_consumers(setting):
    peer = setting.peer()
    peer.send(declare_queue("q"))
    tags = [f"t{number:05}" for number in range(setting.count(65_000))]
    in_pieces(peer, [consume("q", tag, no_wait=True) for tag in tags])
    return peer, tags


@attack("cancel-consumers")
def cancel_consumers(setting):
    """65,000 consumers of one queue are cancelled, the last first."""
    peer, tags = many_consumers(setting)
    cancels = [method(1, 60, 30, short(tag) + b"\1") for tag in reversed(tags)]
    yield
    in_pieces(peer, cancels)


@attack("close-consumers")
def close_consumers(setting):
    """A channel with 65,000 consumers of one queue closes."""
    peer, _ = many_consumers(setting)
    yield
    peer.send(method(1, 20, 40, b"\0\0\0" + b"\0" * 4))
    peer.expect(20, 41)


@attack("delete-consumed")
def delete_consumed(setting):
    """The queue of 65,000 consumers is deleted."""
    peer, _ = many_consumers(setting)
    yield
    peer.send(method(1, 50, 40, b"\0\0" + short("q") + b"\0"))
    peer.expect(50, 41)


@attack("carbon-copies")
def carbon_copies(setting):
    """5,000 keys in CC and as many in BCC, over a chain of 100 exchanges."""
    peer = setting.peer()
    length = setting.count(100)
    peer.send(declare_queue("q") + declare_exchange("e0", "topic"))
    for number in range(1, length):
        peer.send(declare_exchange(f"e{number}", "topic"))
        peer.send(bind_exchange(f"e{number}", f"e{number - 1}", "#"))
    peer.send(bind_queue("q", f"e{length - 1}", "none"))
    keys = [f"k{number:04}" for number in range(5_000)]
    message = publish("e0", "k", b"b", headers={"CC": keys, "BCC": keys})
    peer.settle()
    yield
    for _ in setting.rounds(100):
        peer.send(message)
        peer.settle()


@attack("fan-out")
def fan_out(setting):
    """Messages to 100,000 queues each."""
    peer = setting.peer()
    count = setting.count(100_000)
    peer.send(declare_exchange("f", "fanout"))
    in_pieces(peer, (declare_queue(f"q{n}") + bind_queue(f"q{n}", "f") for n in range(count)))
    yield
    for number in setting.rounds(20):
        peer.send(publish("f", f"{number}", b"b"))
        peer.settle()


def many_bindings(setting):
    peer = setting.peer()
    peer.send(declare_exchange("d", "direct") + declare_queue("q"))
    count = setting.count(1_000_000)
    in_pieces(peer, (bind_queue("q", "d", f"key-{number}") for number in range(count)))
    return peer


@attack("delete-queue")
def delete_queue(setting):
    """A queue with a million bindings is deleted."""
    peer = many_bindings(setting)
    yield
    peer.send(method(1, 50, 40, b"\0\0" + short("q") + b"\0"))
    peer.expect(50, 41)


@attack("delete-exchange")
def delete_exchange(setting):
    """An exchange with a million bindings is deleted."""
    peer = many_bindings(setting)
    yield
    peer.send(method(1, 40, 20, b"\0\0" + short("d") + b"\0"))
    peer.expect(40, 21)


@attack("purge")
def purge(setting):
    """A queue of a million messages is purged, and another deleted."""
    peer = setting.peer()
    peer.send(declare_queue("q") + declare_queue("r"))
    for name in ("q", "r"):
        in_pieces(peer, [publish("", name, b"b") * 100] * (setting.count(1_000_000) // 100))
    yield
    peer.send(method(1, 50, 30, b"\0\0" + short("q") + b"\0"))
    peer.expect(50, 31)
    peer.send(method(1, 50, 40, b"\0\0" + short("r") + b"\0"))
    peer.expect(50, 41)


@attack("exclusive-queues")
def exclusive_queues(setting):
    """A connection with 100,000 exclusive queues vanishes."""
    peer, other = setting.peer(), setting.peer()
    count = setting.count(100_000)
    name = "q{}".format
    in_pieces(
        peer,
        (
            method(1, 50, 10, b"\0\0" + short(name(n)) + b"\x14\0\0\0\0")
            + bind_queue(name(n), "amq.direct", name(n))
            for n in range(count)
        ),
    )
    yield
    peer.end()
    other.settle()


@attack("checkpoints", "--segment-size", "1MiB", "--journal-window", "2MiB")
def checkpoints(setting):
    """100,000 durable queues with bindings, while 200 MB go through a durable one."""
    peer, reader = setting.peer(), setting.peer()
    peer.send(declare_exchange("d", "direct", durable=True))
    names = (f"q{number}" for number in range(setting.count(100_000)))
    in_pieces(peer, (declare_queue(name, True) + bind_queue(name, "d", name) for name in names))
    reader.send(consume("q0", "t", no_ack=True))
    message = publish("", "q0", bytes(10_000), persistent=True)
    taker = threading.Thread(target=take_all, args=(reader,), daemon=True)
    taker.start()
    yield
    for _ in setting.rounds(2000):
        peer.send(message * 10)
    peer.settle()


def take_all(peer):
    """Reads what comes and looks at none of it."""
    try:
        while peer.socket.recv(1 << 18):
            pass
    except OSError:
        pass


@attack("log-pipe", "--log-level", "debug", stalls_log=True)
def log_pipe(setting):
    """Standard error is a pipe that nobody reads; connections come and go."""
    yield
    for _ in setting.rounds(3000):
        peer = Peer(setting.port)
        peer.socket.settimeout(5)
        peer.open().end()


@attack("start-ok")
def unfinished_start_ok(setting):
    """6,000 connections that each leave a start-ok of 60 KB unfinished."""
    yield
    data = b"AMQP\0\0\x09\x01" + start_ok(table({"a": "b" * 60_000}))[:-100]
    peers = []
    for _ in setting.rounds(setting.count(6_000)):
        peers.append(Peer(setting.port))
        peers[-1].send(data)
    time.sleep(1)
    yield
    for peer in peers:
        peer.end()


@attack("route-cache")
def route_cache(setting):
    """8,192 keys into a fanout of 10,000 queues."""
    peer = setting.peer()
    count = setting.count(10_000)
    peer.send(declare_exchange("f", "fanout"))
    in_pieces(peer, (declare_queue(f"q{n}") + bind_queue(f"q{n}", "f") for n in range(count)))
    yield
    for number in setting.rounds(8_192):
        peer.send(publish("f", f"key-{number}", b"b"))
        peer.settle()


@attack("empty-queues")
def empty_queues(setting):
    """100,000 queues that each held a message; then they are deleted."""
    peer = setting.peer()
    names = [f"q{number}" for number in range(setting.count(100_000))]
    in_pieces(peer, map(declare_queue, names))
    yield
    in_pieces(peer, (publish("", name, b"b") for name in names))
    in_pieces(peer, (method(1, 50, 30, b"\0\0" + short(name) + b"\1") for name in names))
    yield
    in_pieces(peer, (method(1, 50, 40, b"\0\0" + short(name) + b"\4") for name in names))


@attack("connect-storm")
def connect_storm(setting):
    """Connections come and go as fast as they can; some say something wrong."""
    yield
    for number in setting.rounds(setting.count(200_000)):
        peer = Peer(setting.port)
        if number % 3 == 0:
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
        # With a reset: an address that waits for its end could not connect again.
        peer.end()


@attack("bare-connections")
def bare_connections(setting):
    """15,000 connections are there at once, and vanish at once."""
    yield
    count = min(setting.count(15_000), resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    peers = [Peer(setting.port) for _ in setting.rounds(count)]
    yield
    for peer in peers:
        peer.end()


@attack("unknown-frames")
def unknown_frames(setting):
    """Frames of no kind, methods of no class, and floods of what may come at any time."""
    yield
    strange = [frame(9, 1, b"x" * 100), method(1, 60, 999), method(1, 85, 10), frame(2, 1, b"")]
    for number in setting.rounds(setting.count(3_000)):
        peer = setting.peer()
        try:
            peer.send(frame(8, 0, b"") * 1000 + strange[number % len(strange)] * 1000)
            peer.expect(0, 0)
        except Refused:
            peer.end()


@attack("tables")
def tables(setting):
    """Deep and wide tables in each method that takes one."""
    nested = {"z": 1}
    for _ in range(120):
        nested = {"n": nested}
    unrolled = b""
    for _ in range(8_000):
        unrolled = short("n") + b"F" + long(unrolled)
        if len(unrolled) > 100_000:
            break
    fields = [table(flags(9_000)), table(nested), long(unrolled), table({"a": [True] * 50_000})]
    methods = []
    for field in fields:
        methods += [
            declare_queue("t", arguments=field),
            declare_exchange("t", "headers", arguments=field),
            bind_queue("q", "amq.headers", arguments=field),
            bind_queue("q", "amq.topic", arguments=field),
            bind_exchange("e", "amq.headers", arguments=field),
            method(1, 50, 50, b"\0\0" + short("q") + short("amq.headers") + b"\0" + field),
            method(1, 40, 40, b"\0\0" + short("e") + short("amq.headers") + b"\0\1" + field),
            consume("q", "t", arguments=field),
            publish("amq.headers", "", b"b", headers=field),
            publish("", "q", b"b", headers=field),
        ]
    yield
    for number in setting.rounds(setting.count(2_000)):
        peer = setting.peer()
        try:
            peer.send(declare_queue("q") + declare_exchange("e", "headers"))
            peer.send(methods[number % len(methods)])
            peer.settle()
        except Refused:
            pass
        peer.end()
        if number % len(methods) == 0:
            peer = Peer(setting.port)
            peer.send(b"AMQP\0\0\x09\x01" + start_ok(fields[number // len(methods) % 4])[:60_000])
            peer.end()


@attack("bodies")
def unfinished_bodies(setting):
    """8 connections that each leave 100 MB of bodies unfinished."""
    yield
    piece = frame(3, 1, bytes(131_000))
    peers = []
    for _ in range(8):
        peers.append(setting.peer())
        header = struct.pack(">HHQH", 60, 0, 120_000_000, 0)
        start = method(1, 60, 40, b"\0\0" + short("") + short("q") + b"\0") + frame(2, 1, header)
        peers[-1].socket.settimeout(1)
        try:
            peers[-1].send(start)
            for _ in setting.rounds(setting.count(760)):
                peers[-1].send(piece)
        except (Refused, TimeoutError):
            pass
    yield
    for peer in peers:
        peer.end()


@attack("slow-readers")
def slow_readers(setting):
    """200 consumers that read nothing, of a queue of 2,000 messages of 100 KB."""
    peer = setting.peer()
    peer.send(declare_queue("q"))
    in_pieces(peer, [publish("", "q", bytes(100_000)) for _ in range(setting.count(2_000))], 10)
    yield
    peers = []
    for _ in setting.rounds(200):
        peers.append(setting.peer(receive_buffer=4096))
        peers[-1].send(consume("q", "t"))
    yield
    for peer in peers:
        peer.end()


@attack("large-messages", "--memory-limit", "4GiB")
def large_messages(setting):
    """Three clients publish messages of 128 MiB, one of them persistent ones, and three consume them."""
    whole = 131_064
    count = min(1024, setting.count(128) * 8)
    size = count * whole
    takers = []
    for number in range(3):
        taker = setting.peer()
        taker.send(declare_queue(f"q{number}", True) + consume(f"q{number}", "t", no_ack=True))
        taker.expect(60, 21)
        takers.append(threading.Thread(target=take_all, args=(taker,), daemon=True))
        takers[-1].start()
    publishers = [setting.peer() for _ in takers]
    pieces = frame(3, 1, bytes(whole)) * 8
    yield

    def carry(number):
        peer, is_persistent = publishers[number], number == 0
        flags = struct.pack(">HHQH", 60, 0, size, 0x1000 * is_persistent) + b"\x02" * is_persistent
        names = b"\0\0" + short("") + short(f"q{number}") + b"\0"
        for _ in setting.rounds(100):
            peer.send(method(1, 60, 40, names) + frame(2, 1, flags))
            for _ in range(count // 8):
                peer.send(pieces)
            peer.settle()

    carriers = [threading.Thread(target=carry, args=(number,)) for number in range(3)]
    for carrier in carriers:
        carrier.start()
    for carrier in carriers:
        carrier.join()
