"""Messages that wait for their time are listed and cancelled."""

import json
import time
from datetime import datetime, timezone

import pika
import pytest

from inbox import Inbox, wait_for
from test_commands import run


@pytest.fixture
def later(channel, fresh, queue):
    """An exchange that delays, with a queue behind it."""
    name = fresh("later")
    kind = {"x-delayed-type": "topic"}
    channel.exchange_declare(name, "x-delayed-message", durable=True, arguments=kind)
    channel.queue_bind(queue, name, "#")
    return name


def publish(channel, exchange, key, seconds, body=b"x"):
    properties = pika.BasicProperties(headers={"x-delay": int(seconds * 1000)}, delivery_mode=2)
    channel.basic_publish(exchange, key, body, properties)


def listed(url, *words):
    out, _ = run("delayed", "list", "--json", *words, url=url)
    return [json.loads(line) for line in out.splitlines()]


def test_what_waits_is_listed(url, channel, later):
    channel.confirm_delivery()
    before = time.time()
    for key, seconds in (("b", 7200), ("a", 60), ("c", 864000)):
        publish(channel, later, key, seconds, b"x" * 1500)
    rows = listed(url, "--exchange", later)
    assert [row["routing_key"] for row in rows] == ["a", "b", "c"]
    for row, seconds in zip(rows, (60, 7200, 864000)):
        assert row["exchange"] == later and row["bytes"] == 1500 and row["persistent"] is True
        assert before - 0.1 <= row["due"] / 1000 - seconds <= time.time() + 0.1
    assert [row["routing_key"] for row in listed(url, "-e", later, "--key", "b")] == ["b"]
    out, said = run("delayed", "list", "-e", later, "--limit", "1", url=url)
    (line,) = out.decode().splitlines()
    date = datetime.fromtimestamp(rows[0]["due"] / 1000, timezone.utc)
    words = date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{rows[0]['due'] % 1000:03}Z"
    assert line == f"{rows[0]['id']}  {words}  {later}  a  1,500 bytes"
    assert "1 shown; there are more (see --limit)" in said
    run("delayed", "cancel", "-e", later, url=url)


def test_what_is_cancelled_never_comes(url, channel, later, queue):
    channel.confirm_delivery()
    for number in range(6):
        publish(channel, later, f"k.{number % 2}", 1, str(number).encode())
    ids = [row["id"] for row in listed(url, "-e", later, "-k", "k.0")]
    _, said = run("delayed", "cancel", *ids[:2], url=url)
    assert "cancelled 2 messages" in said
    _, said = run("delayed", "cancel", ids[0], url=url, expect=4)
    assert "cancelled 0 messages" in said and f"{ids[0]} does not wait" in said
    inbox = Inbox(channel, queue, auto_ack=True)
    inbox.wait(4)
    assert sorted(inbox.bodies) == [b"1", b"3", b"4", b"5"]
    assert listed(url, "-e", later) == []


def test_an_exchange_is_cancelled_and_others_stay(url, channel, later, fresh):
    other = fresh("other")
    channel.exchange_declare(other, "fanout", arguments={"x-delay": True})
    channel.confirm_delivery()
    for exchange in (later, other):
        for _ in range(3):
            publish(channel, exchange, "k", 3600)
    _, said = run("delayed", "cancel", "--exchange", other, url=url)
    assert "cancelled 3 messages" in said
    assert len(listed(url, "-e", later)) == 3 and listed(url, "-e", other) == []
    run("delayed", "cancel", "-e", later, url=url)


def test_dead_letters_that_wait_are_listed(url, channel, later, fresh):
    work = fresh("work")
    channel.queue_declare(work, arguments={"x-dead-letter-exchange": later})
    channel.queue_bind(work, "amq.direct", work)
    properties = pika.BasicProperties(headers={"x-delay": 60_000})
    channel.basic_publish("amq.direct", work, b"again", properties)
    method, _, _ = channel.basic_get(work)
    channel.basic_nack(method.delivery_tag, requeue=False)
    wait_for(channel.connection, lambda: len(listed(url, "-e", later)) == 1, 10, "the dead letter")
    _, said = run("delayed", "cancel", "-e", later, url=url)
    assert "cancelled 1 message" in said


def test_ids_and_cancelling_survive_a_kill(own_broker):
    connection = pika.BlockingConnection(pika.URLParameters(own_broker.url))
    channel = connection.channel()
    channel.confirm_delivery()
    kind = {"x-delayed-type": "fanout"}
    channel.exchange_declare("later", "x-delayed-message", durable=True, arguments=kind)
    for number in range(2500):
        publish(channel, "later", f"{number}", 3600 + number)
    before = listed(own_broker.url, "--limit", "10000")
    assert len(before) == 2500 and len({row["id"] for row in before}) == 2500
    gone = [row["id"] for row in before[::2]]
    run("delayed", "cancel", *gone, url=own_broker.url)
    connection.close()
    own_broker.kill()
    own_broker.start()
    after = listed(own_broker.url, "--limit", "10000")
    # Pages end elsewhere, and coarse places are in the order in which messages came.
    assert len(after) == 1250 and {row["id"] for row in after} == {row["id"] for row in before[1::2]}
    _, said = run("delayed", "cancel", "--all", url=own_broker.url)
    assert "cancelled 1,250 messages" in said
    own_broker.kill()
    own_broker.start()
    assert listed(own_broker.url) == []


def test_it_is_said_which(url):
    for words in ([], ["--all", "-e", "x"], ["abc", "--all"]):
        _, said = run("delayed", "cancel", *words, url=url, expect=2)
        assert "say which" in said
    _, said = run("delayed", "cancel", "abc", url=url, expect=1)
    assert '"abc" is no id' in said
