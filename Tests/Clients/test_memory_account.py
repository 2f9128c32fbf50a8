"""The account of memory: what the status line says of each kind is what the process really takes,
each kind has a bound, and none of them takes the broker away from others."""

import re
import signal
import threading

import pytest
from pika import spec

from raw_peer import PROTOCOL_HEADER, RawPeer, content, encode
from watched_broker import MEBI, Bystander, connections_allowed, eventually, serving

KINDS = (
    "messages entries deliveries topology routes connections input bodies output".split()
)
# What the allocator and the kernel round up, and what was used for a moment and is kept.
SLACK_BYTES = 12 * MEBI


class Account:
    """What the broker says that its memory goes to, since this account was opened."""

    def __init__(self, broker):
        self.broker = broker
        self.said = status(broker)
        self.resident = broker.resident()

    def grown(self, kind: str = "") -> int:
        name = f"memory-{kind}" if kind else "memory"
        return status(self.broker)[name] - self.said[name]

    def expect_truth(self, kind: str) -> int:
        """The kind has grown by what the process has grown; returns by how much."""
        grown, all_kinds = self.grown(kind), self.grown()
        resident = self.broker.resident() - self.resident
        figures = f"{kind} {grown >> 20}, all {all_kinds >> 20}, resident {resident >> 20} MiB"
        assert resident < 1.35 * all_kinds + SLACK_BYTES, f"more is used than counted: {figures}"
        assert all_kinds < 1.35 * resident + SLACK_BYTES, f"more is counted than used: {figures}"
        assert grown > 0.6 * all_kinds, f"counted as something else: {figures}"
        return grown


def status(broker) -> dict[str, int]:
    """The figures of the status line that SIGUSR1 asks for."""
    seen = len(broker.lines(" status: "))
    broker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: len(broker.lines(" status: ")) > seen, "status line")
    line = broker.lines(" status: ")[-1]
    return {name: int(value) for name, value in re.findall(r"([\w-]+)=(\d+)\b", line)}


@pytest.fixture
def broker(tmp_path):
    with serving(tmp_path, "--durability", "written", "--memory-limit", "256MiB") as broker:
        yield broker


@pytest.fixture
def roomy(tmp_path):
    """A broker that has memory for what a test wants to see whole."""
    with serving(tmp_path, "--durability", "written", "--memory-limit", "4GiB") as broker:
        yield broker


def pipelined(peer, methods, kind, channel=1, window=500):
    """Asks for all of it and hears the answers."""
    methods = list(methods)
    for start in range(0, len(methods), window):
        part = methods[start : start + window]
        peer.send(b"".join(encode(method, channel) for method in part))
        for _ in part:
            peer.expect(kind)


def declare(peer, queue, **options):
    return peer.ask(spec.Queue.Declare(queue=queue, **options), spec.Queue.DeclareOk, channel=1)


# Each kind is counted


def test_topology_is_counted(roomy):
    count = 20_000
    with RawPeer(roomy.url).open() as peer:
        account = Account(roomy)
        names = [f"queue-{number:08d}" for number in range(count)]
        pipelined(peer, (spec.Queue.Declare(queue=name) for name in names), spec.Queue.DeclareOk)
        for exchange in ("amq.direct", "amq.topic", "amq.headers"):
            pipelined(
                peer,
                (
                    spec.Queue.Bind(
                        queue=name,
                        exchange=exchange,
                        routing_key=f"a.{name}.b",
                        arguments={"x-match": "all", "number": number, "name": name},
                    )
                    for number, name in enumerate(names)
                ),
                spec.Queue.BindOk,
            )
        pipelined(
            peer,
            (spec.Basic.Consume(queue=name, consumer_tag=name) for name in names),
            spec.Basic.ConsumeOk,
        )
        account.expect_truth("topology")
        pipelined(peer, (spec.Queue.Delete(queue=name) for name in names), spec.Queue.DeleteOk)
        assert account.grown("topology") < MEBI, "topology that is gone is still counted"
        eventually(
            lambda: roomy.resident() < account.resident + 3 * SLACK_BYTES,
            "memory given back",
        )


def test_entries_of_many_small_queues_are_counted(roomy):
    count = 20_000
    with RawPeer(roomy.url).open() as peer:
        names = [f"queue-{number:08d}" for number in range(count)]
        pipelined(peer, (spec.Queue.Declare(queue=name) for name in names), spec.Queue.DeclareOk)
        account = Account(roomy)
        peer.send(b"".join(content(1, name, 1, b"x") for name in names))
        declare(peer, names[0], passive=True)
        assert account.grown("entries") > count * 16
        assert account.grown("entries") < count * 1024, "a queue with one message is small"
        pipelined(peer, (spec.Queue.Purge(queue=name) for name in names), spec.Queue.PurgeOk)
        assert account.grown("entries") < account.said["memory"] + count * 256


def test_waiting_messages_are_counted(roomy):
    with RawPeer(roomy.url).open() as peer:
        declare(peer, "waiting")
        account = Account(roomy)
        peer.send(content(1, "waiting", 1000, bytes(1000)) * 100_000)
        declare(peer, "waiting", passive=True)
        account.expect_truth("messages")
        peer.ask(spec.Queue.Purge(queue="waiting"), spec.Queue.PurgeOk, channel=1)
        assert account.grown("messages") < MEBI


def test_unacknowledged_deliveries_are_counted(roomy):
    count = 500_000
    with RawPeer(roomy.url).open() as peer:
        declare(peer, "waiting")
        message = content(1, "waiting", 1, b"x")
        for _ in range(count // 5000):
            peer.send(message * 5000)
        declare(peer, "waiting", passive=True)
        account = Account(roomy)
        peer.say(spec.Basic.Consume(queue="waiting", consumer_tag="c"), channel=1)
        for _ in range(count):
            last = peer.expect(spec.Basic.Deliver)
        assert account.grown("deliveries") >= 32 * count
        assert account.grown("deliveries") < 128 * count
        peer.say(spec.Basic.Ack(last.delivery_tag, multiple=True), channel=1)
        declare(peer, "waiting", passive=True)
        assert account.grown("deliveries") < MEBI


def test_connections_and_channels_are_counted(roomy):
    count = connections_allowed(1000)
    account = Account(roomy)
    peers = [RawPeer(roomy.url).open() for _ in range(count)]
    for peer in peers:
        for channel in range(2, 32):
            peer.say(spec.Channel.Open(), channel=channel)
        for channel in range(2, 32):
            peer.expect(spec.Channel.OpenOk)
    account.expect_truth("connections")
    for peer in peers:
        peer.reset()
    eventually(lambda: account.grown("connections") < MEBI, "connections that are over")


def test_routes_are_counted_and_bounded(broker):
    """Many keys into one wide fanout: what is remembered of them is bounded by their size."""
    width, keys = 2000, 4000
    with RawPeer(broker.url).open() as peer:
        names = [f"queue-{number}" for number in range(width)]
        arguments = {"x-max-length": 1}
        pipelined(
            peer,
            (spec.Queue.Declare(queue=name, arguments=arguments) for name in names),
            spec.Queue.DeclareOk,
        )
        pipelined(
            peer,
            (spec.Queue.Bind(queue=name, exchange="amq.fanout") for name in names),
            spec.Queue.BindOk,
        )
        account = Account(broker)
        for key in range(keys):
            peer.send(encode_publish("amq.fanout", f"key-{key}"))
            if key % 100 == 99:
                pipelined(
                    peer, (spec.Queue.Purge(queue=name) for name in names), spec.Queue.PurgeOk
                )
        assert 0 < account.grown("routes") < 64 * MEBI
        assert broker.resident() < account.resident + 96 * MEBI


def encode_publish(exchange, key):
    whole = content(1, key, 1, b"x")
    named = encode(spec.Basic.Publish(exchange=exchange, routing_key=key), 1)
    plain = encode(spec.Basic.Publish(exchange="", routing_key=key), 1)
    return named + whole[len(plain) :]


def test_unfinished_requests_are_counted(roomy):
    """Methods that never end, on connections that are open."""
    count = connections_allowed(500)
    peers = [RawPeer(roomy.url).open() for _ in range(count)]
    account = Account(roomy)
    for peer in peers:
        peer.send(b"\x01\x00\x01" + (100_000).to_bytes(4, "big") + bytes(90_000))
    eventually(lambda: account.grown("input") >= count * 90_000, "counted input")
    account.expect_truth("input")
    for peer in peers:
        peer.reset()
    eventually(lambda: account.grown("input") < MEBI, "input that is over")


# Each kind is bounded


def test_unfinished_bodies_leave_room_for_others(broker):
    """Forty clients begin messages of 100 MiB. The broker takes as much of them as it may keep, and
    publishers that finish are served all the while."""
    peers = [RawPeer(broker.url).open() for _ in range(40)]
    with Bystander(broker) as bystander:
        account = Account(broker)
        for peer in peers:
            peer.send(content(1, "nowhere", 100 * MEBI))
        piece = b"\x03\x00\x01" + (100_000).to_bytes(4, "big") + bytes(100_000) + b"\xce"
        threads = [
            threading.Thread(target=peer.say_while_heard, args=(piece * 200, 2)) for peer in peers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bystander.expect_progress()
        assert 16 * MEBI < account.grown("bodies") < 128 * MEBI
        assert broker.resident() < account.resident + 192 * MEBI
        assert not broker.lines("publishers are blocked")
    for peer in peers:
        peer.reset()
    eventually(lambda: status(broker)["memory-bodies"] == 0, "bodies that are over")


def test_slow_readers_of_large_messages_do_not_fill_the_memory(broker):
    """Sixty clients ask for messages of 8 MiB and read nothing."""
    with RawPeer(broker.url).open() as peer:
        declare(peer, "large", durable=True)
        peer.ask(spec.Confirm.Select(), spec.Confirm.SelectOk, channel=1)
        pieces = [bytes(100_000)] * 80
        for number in range(60):
            peer.send(content(1, "large", 8_000_000, *pieces, persistent=True))
            peer.expect(spec.Basic.Ack)
    peers = [RawPeer(broker.url, receive_buffer=4096).open() for _ in range(60)]
    with Bystander(broker) as bystander:
        account = Account(broker)
        for peer in peers:
            peer.say(spec.Basic.Consume(queue="large", no_ack=False), channel=1)
        eventually(lambda: account.grown("output") > 16 * MEBI, "output")
        bystander.expect_progress()
        bystander.expect_progress()
        assert broker.resident() < account.resident + 256 * MEBI
        assert account.grown("output") < 192 * MEBI
        bystander.expect_progress()
    for peer in peers:
        peer.reset()
    eventually(lambda: status(broker)["memory-output"] < MEBI, "output that is over")


def test_topology_is_refused_above_its_share(broker):
    """Queues without end: at a quarter of the memory limit they are refused, and nobody is blocked."""
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        account = Account(broker)
        number = 0
        closed = None
        while closed is None and number < 400_000:
            peer.send(
                b"".join(
                    encode(spec.Queue.Declare(queue=f"{'q' * 200}-{number + i}"), 1)
                    for i in range(500)
                )
            )
            for _ in range(500):
                answer = peer.hear().method
                if isinstance(answer, (spec.Channel.Close, spec.Connection.Close)):
                    closed = answer
                    break
            number += 500
        assert closed and closed.reply_code == 506, closed
        assert "memory" in closed.reply_text
        assert account.grown("topology") < 80 * MEBI
        assert broker.resident() < account.resident + 160 * MEBI
