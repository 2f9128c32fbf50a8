"""pika: how each type of exchange routes, and exchanges bound to exchanges."""

import pika
import pytest

from inbox import drain, wait_for


@pytest.fixture
def bound(channel, fresh):
    """Binds a fresh queue of its own to an exchange, by key or arguments, and returns its name."""

    def bind(exchange, key="", arguments=None):
        name = channel.queue_declare(fresh("bound"), exclusive=True).method.queue
        channel.queue_bind(name, exchange, key, arguments)
        return name

    return bind


@pytest.fixture
def exchange(channel, fresh):
    def declare(kind, **options):
        name = fresh(kind)
        channel.exchange_declare(name, kind, **options)
        return name

    return declare


def bodies(channel, queue, count):
    return [delivery.body for delivery in drain(channel, queue, count)]


def test_direct_routes_by_equal_keys(channel, exchange, bound):
    name = exchange("direct")
    red, green, also_red = bound(name, "red"), bound(name, "green"), bound(name, "red")
    for key in ("red", "green", "blue"):
        channel.basic_publish(name, key, key.encode())
    assert bodies(channel, red, 1) == bodies(channel, also_red, 1) == [b"red"]
    assert bodies(channel, green, 1) == [b"green"]


def test_fanout_routes_to_all(channel, exchange, bound):
    name = exchange("fanout")
    queues = [bound(name, f"ignored {number}") for number in range(20)]
    channel.basic_publish(name, "whatever", b"body")
    assert [bodies(channel, queue, 1) for queue in queues] == [[b"body"]] * 20


@pytest.mark.parametrize(
    "pattern, matching",
    [
        ("a.b.c", ["a.b.c"]),
        ("a.*.c", ["a.b.c", "a..c"]),
        ("a.#", ["a", "a.b", "a.b.c", "a..c"]),
        ("#.c", ["a.b.c", "b.c", "c", "a..c"]),
        ("*", ["a", "c"]),
        ("*.*", ["a.b", "b.c"]),
        ("#", ["a", "a.b", "a.b.c", "b.c", "c", "a..c", ""]),
        ("a.#.c", ["a.b.c", "a..c"]),
        ("#.b.#", ["a.b", "a.b.c", "b.c"]),
        ("", [""]),
        ("A.B", []),
    ],
)
def test_topic_routes_by_words(channel, exchange, bound, pattern, matching):
    name = exchange("topic")
    queue = bound(name, pattern)
    for key in ("a", "a.b", "a.b.c", "b.c", "c", "a..c", ""):
        channel.basic_publish(name, key, key.encode())
    assert sorted(bodies(channel, queue, len(matching))) == sorted(key.encode() for key in matching)


def test_message_reaches_a_queue_once_however_many_bindings_match(channel, exchange, bound):
    name = exchange("topic")
    queue = bound(name, "a.*")
    for pattern in ("a.b", "#", "*.b", "a.#"):
        channel.queue_bind(queue, name, pattern)
    channel.basic_publish(name, "a.b", b"body")
    assert bodies(channel, queue, 1) == [b"body"]


@pytest.mark.parametrize(
    "arguments, matching",
    [
        ({"x-match": "all", "kind": "report", "size": 3}, ["both"]),
        ({"x-match": "any", "kind": "report", "size": 3}, ["both", "kind", "size"]),
        ({"kind": "report"}, ["both", "kind"]),
        ({"x-match": "all", "size": None}, ["both", "size", "other size"]),
        ({"x-match": "all"}, ["both", "kind", "size", "other size", "nothing"]),
        ({"x-match": "any", "kind": "memo"}, []),
    ],
)
def test_headers_routes_by_arguments(channel, exchange, bound, arguments, matching):
    name = exchange("headers")
    queue = bound(name, "", arguments)
    for body, headers in (
        ("both", {"kind": "report", "size": 3, "more": True}),
        ("kind", {"kind": "report"}),
        ("size", {"size": 3}),
        ("other size", {"size": 4}),
        ("nothing", None),
    ):
        channel.basic_publish(name, "ignored", body, pika.BasicProperties(headers=headers))
    assert bodies(channel, queue, len(matching)) == [body.encode() for body in matching]


@pytest.mark.parametrize(
    "name, key",
    [
        ("amq.direct", "key"),
        ("amq.topic", "#"),
        ("amq.fanout", ""),
        ("amq.headers", ""),
        ("amq.match", ""),
    ],
)
def test_predeclared_exchanges_route(channel, bound, fresh, name, key):
    unique = fresh()
    queue = bound(name, unique if name == "amq.direct" else key)
    channel.basic_publish(name, unique, b"body")
    assert bodies(channel, queue, 1) == [b"body"]


def test_unbound_queue_gets_no_more(channel, exchange, bound):
    name = exchange("direct")
    queue = bound(name, "a")
    channel.queue_bind(queue, name, "b")
    channel.queue_unbind(queue, name, "a")
    channel.queue_unbind(queue, name, "never bound")
    channel.basic_publish(name, "a", b"a")
    channel.basic_publish(name, "b", b"b")
    assert bodies(channel, queue, 1) == [b"b"]


def test_bindings_that_differ_in_arguments_are_two(channel, exchange, bound):
    name = exchange("headers")
    queue = bound(name, "", {"x-match": "all", "a": 1})
    channel.queue_bind(queue, name, "", {"x-match": "all", "b": 1})
    channel.queue_unbind(queue, name, "", {"x-match": "all", "a": 1})
    channel.basic_publish(name, "", b"a", pika.BasicProperties(headers={"a": 1}))
    channel.basic_publish(name, "", b"b", pika.BasicProperties(headers={"b": 1}))
    assert bodies(channel, queue, 1) == [b"b"]


def test_exchange_bound_to_an_exchange_passes_on(channel, exchange, bound):
    source, middle, last = exchange("topic"), exchange("direct"), exchange("fanout")
    channel.exchange_bind(middle, source, "log.#")
    channel.exchange_bind(last, middle, "log.error")
    queue = bound(last)
    for key in ("log.error", "log.info", "metric.error"):
        channel.basic_publish(source, key, key.encode())
    assert bodies(channel, queue, 1) == [b"log.error"]
    channel.exchange_unbind(last, middle, "log.error")
    channel.basic_publish(source, "log.error", b"late")
    assert bodies(channel, queue, 0) == []


def test_circle_of_exchanges_delivers_once(channel, exchange, bound):
    ring = [exchange("fanout") for _ in range(3)]
    for source, destination in zip(ring, ring[1:] + ring[:1], strict=True):
        channel.exchange_bind(destination, source, "")
    queues = [bound(name) for name in ring]
    channel.basic_publish(ring[0], "", b"body")
    assert [bodies(channel, queue, 1) for queue in queues] == [[b"body"]] * 3


def test_alternate_exchange_takes_what_has_no_route(channel, exchange, bound):
    other = exchange("fanout")
    name = exchange("direct", arguments={"alternate-exchange": other})
    known, rest = bound(name, "known"), bound(other)
    channel.confirm_delivery()
    channel.basic_publish(name, "known", b"1", mandatory=True)
    channel.basic_publish(name, "unknown", b"2", mandatory=True)
    assert bodies(channel, known, 1) == [b"1"] and bodies(channel, rest, 1) == [b"2"]


def test_additional_routing_keys_in_headers(channel, exchange, bound):
    name = exchange("direct")
    queues = {key: bound(name, key) for key in ("to", "copy", "blind")}
    channel.basic_publish(
        name, "to", b"body", pika.BasicProperties(headers={"CC": ["copy"], "BCC": ["blind"]})
    )
    for queue in queues.values():
        properties = drain(channel, queue, 1)[0].properties
        assert properties.headers == {"CC": ["copy"]}


def test_auto_delete_exchange_goes_with_its_last_binding(connection, channel, exchange, bound):
    name = exchange("fanout", auto_delete=True)
    queue = bound(name)
    channel.exchange_declare(name, passive=True)
    channel.queue_unbind(queue, name, "")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        connection.channel().exchange_declare(name, passive=True)
    assert raised.value.reply_code == 404


def test_deleted_exchange_routes_no_more(connection, channel, exchange, bound):
    name = exchange("fanout")
    bound(name)
    channel.exchange_delete(name)
    channel.exchange_delete(name)
    failed = connection.channel()
    failed.basic_publish(name, "", b"body")
    wait_for(connection, lambda: not failed.is_open, 10, "channel close")
