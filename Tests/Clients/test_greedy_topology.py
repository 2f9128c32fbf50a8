"""Peers that declare very much and then ask for all of it at once: others are served meanwhile."""

import struct

import pytest
from pika import BasicProperties, frame, spec

from raw_peer import RawPeer, encode
from watched_broker import MEBI, Bystander, eventually, serving


@pytest.fixture
def broker(tmp_path):
    with serving(tmp_path) as broker:
        yield broker


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def method(class_id: int, method_id: int, arguments: bytes, channel=1) -> bytes:
    payload = struct.pack(">HHH", class_id, method_id, 0) + arguments
    return b"\x01" + struct.pack(">HI", channel, len(payload)) + payload + b"\xce"


def declaring(queue: str, *, durable=False, exclusive=False) -> bytes:
    """A queue.declare without an answer, which pika takes long to make."""
    flags = 16 | durable << 1 | exclusive << 2
    return method(50, 10, short(queue) + bytes([flags]) + bytes(4))


def binding(queue: str, exchange: str, key: str) -> bytes:
    return method(50, 20, short(queue) + short(exchange) + short(key) + b"\x01" + bytes(4))


def ask_much(peer, requests) -> None:
    """Sends requests that are not answered, and waits until all were taken."""
    data = bytearray()
    for request in requests:
        data += request
        if len(data) > 1 << 18:
            peer.send(data)
            data.clear()
    peer.send(data)
    peer.ask(spec.Basic.Qos(), spec.Basic.QosOk, channel=1)


def message(exchange: str, headers=None, *, persistent=False) -> bytes:
    properties = BasicProperties(headers=headers, delivery_mode=2 if persistent else 1)
    return (
        encode(spec.Basic.Publish(exchange=exchange, routing_key="key"), 1)
        + frame.Header(1, 1, properties).marshal()
        + frame.Body(1, b"x").marshal()
    )


def declare(peer, queue, **options):
    return peer.ask(spec.Queue.Declare(queue=queue, **options), spec.Queue.DeclareOk, channel=1)


def test_headers_by_the_thousand_meet_bindings_by_the_hundred(broker):
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        declare(peer, "q")
        wanted = {f"h{number}": 1 for number in range(200)}
        for number in range(300):
            arguments = wanted | {"h199": number}
            peer.ask(
                spec.Queue.Bind(queue="q", exchange="amq.headers", arguments=arguments),
                spec.Queue.BindOk,
                channel=1,
            )
        headers = {f"h{number}": 1 for number in range(10_000)}
        peer.send(message("amq.headers", headers) * 30)
        eventually(lambda: declare(peer, "q", passive=True).message_count == 30, "messages", 30)


def test_more_arguments_than_the_limit_are_refused(broker):
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        declare(peer, "q")
        arguments = {f"h{number}": 1 for number in range(257)}
        peer.say(spec.Queue.Bind(queue="q", exchange="amq.headers", arguments=arguments), channel=1)
        close = peer.hear().method
        assert (close.NAME, close.reply_code) == ("Channel.Close", 406)
        assert "257 arguments are more than the limit (256)" in close.reply_text


def test_more_keys_than_the_limit_are_refused(broker):
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        peer.send(message("", {"CC": [f"key-{number}" for number in range(5000)]}))
        close = peer.hear().method
        assert (close.NAME, close.reply_code) == ("Channel.Close", 406)
        assert "5000 routing keys in CC and BCC are more than the limit (256)" in close.reply_text


@pytest.mark.parametrize("persistent", [False, True], ids=["transient", "persistent"])
def test_a_message_to_very_many_queues_is_confirmed_when_all_have_it(broker, persistent):
    count = 30_000
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        names = [f"queue-{number}" for number in range(count)]
        ask_much(peer, (declaring(name, durable=persistent) for name in names))
        ask_much(peer, (binding(name, "amq.fanout", "") for name in names))
        peer.ask(spec.Confirm.Select(), spec.Confirm.SelectOk, channel=1)
        peer.send(message("amq.fanout", persistent=persistent) * 3)
        with RawPeer(broker.url).open() as watcher:
            while peer.expect(spec.Basic.Ack).delivery_tag < 3:
                pass
            for name in (names[0], names[count // 2], names[-1]):
                assert declare(watcher, name, passive=True).message_count == 3


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.topic", "amq.headers"])
def test_a_queue_with_very_many_bindings_leaves_no_memory_behind(broker, exchange):
    with Bystander(broker), RawPeer(broker.url).open() as peer:
        declare(peer, "q")
        ask_much(peer, (binding("q", exchange, f"key.{number}") for number in range(1000)))
        before = broker.resident()
        ask_much(peer, (binding("q", exchange, f"key.{number}") for number in range(200_000)))
        assert broker.resident() > before + 30 * MEBI
        peer.ask(spec.Queue.Delete(queue="q"), spec.Queue.DeleteOk, channel=1)
        # Although the bystander is never quiet.
        eventually(lambda: broker.resident() < before + 16 * MEBI, "memory given back", 20)


def test_a_connection_with_very_many_exclusive_queues_goes(broker):
    count = 30_000
    with Bystander(broker), RawPeer(broker.url).open() as watcher:
        with RawPeer(broker.url).open() as peer:
            ask_much(peer, (declaring(f"own-{n}", exclusive=True) for n in range(count)))
            peer.reset()

        def is_gone(name):
            watcher.say(spec.Queue.Declare(queue=name, passive=True), channel=1)
            code = watcher.expect_channel_close().reply_code
            watcher.ask(spec.Channel.Open(), spec.Channel.OpenOk, channel=1)
            return code == 404

        for name in ("own-0", f"own-{count - 1}"):
            eventually(lambda name=name: is_gone(name), "end of the queues", 20)
