"""What the broker says of the way that a message would take."""

import json

import pika
import pytest

from inbox import Inbox
from test_commands import run

ADDRESS = "amq.martlet.management"


@pytest.fixture
def ask(channel):
    """Asks by direct reply-to; the answer, and its properties."""
    answers = []
    channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda c, m, p, b: answers.append((json.loads(b), p)), auto_ack=True
    )

    def send(body, correlation="7"):
        properties = pika.BasicProperties(
            reply_to="amq.rabbitmq.reply-to", correlation_id=correlation
        )
        channel.basic_publish("", ADDRESS, body, properties)
        while not answers:
            channel.connection.process_data_events(1)
        return answers.pop()

    return send


@pytest.fixture
def topology(channel, fresh):
    """A topic exchange with bindings by key and by filter, and an exchange behind it."""
    events, audit, jobs, alarms = (fresh(n) for n in ("events", "audit", "jobs", "alarms"))
    channel.exchange_declare(events, "topic")
    channel.exchange_declare(audit, "fanout")
    for queue in (jobs, alarms):
        channel.queue_declare(queue)
    channel.queue_bind(jobs, events, "order.*")
    channel.queue_bind(alarms, events, "#", {"x-filter": "retries > 3"})
    channel.exchange_bind(audit, events, "*.new")
    channel.queue_bind(jobs, audit)
    return events, audit, jobs, alarms


def test_a_route_is_explained_binding_by_binding(url, topology):
    events, audit, jobs, alarms = topology
    out, _ = run("route", events, "order.new", "-H", "retries=3", "--json", url=url)
    answer = json.loads(out)
    first, second = answer["exchanges"]
    assert (first["name"], first["type"], first["bindings_count"]) == (events, "topic", 3)
    found = {
        b["destination"]: (b["fits"], b.get("filter"), b["taken"]) for b in first["bindings"]
    }
    assert found == {
        jobs: (True, None, True),
        alarms: (True, "false", False),
        audit: (True, None, True),
    }
    assert second["name"] == audit and [b["destination"] for b in second["bindings"]] == [jobs]
    assert [q["name"] for q in answer["queues"]] == [jobs] and answer["complete"]


def test_people_read_why(url, channel, topology):
    events, audit, jobs, alarms = topology
    channel.basic_publish("", jobs, b"x")
    out, _ = run("route", events, "order.old", url=url)
    lines = out.decode().splitlines()
    assert lines[:4] == [
        f'exchange "{events}" (topic), 3 bindings',
        f'  + queue "{jobs}", key "order.*"',
        f'  - queue "{alarms}", key "#", filter "retries > 3": filter unknown',
        f'  - exchange "{audit}", key "*.new": does not fit',
    ]
    assert lines[4:] == ["reaches 1 queue:", f"  {jobs} (1 message ready, 0 consumers)"]
    out, _ = run("route", events, "a.b", "-H", "retries=4", url=url)
    assert f'  + queue "{alarms}", key "#", filter "retries > 3"' in out.decode()
    out, _ = run("route", events, "nothing.here.at.all", url=url, expect=4)
    assert out.decode().splitlines()[-1] == "reaches no queue"
    out, _ = run("route", "", jobs, url=url)
    assert f'  + queue "{jobs}"' in out.decode()
    _, said = run("route", "no-such-exchange", "k", url=url, expect=1)
    assert "no exchange 'no-such-exchange' in vhost '/'" in said


def test_nothing_is_published(url, channel, topology):
    run("route", topology[0], "order.new", "--body", "x", url=url)
    for queue in topology[2:]:
        assert channel.basic_get(queue) == (None, None, None)


def test_alternates_delays_and_headers_are_explained(url, channel, fresh, queue):
    direct, other, later = fresh("direct"), fresh("other"), fresh("later")
    channel.exchange_declare(other, "headers")
    channel.queue_bind(queue, other, "", {"x-match": "all", "kind": "order"})
    channel.exchange_declare(direct, "direct", arguments={"alternate-exchange": other})
    channel.queue_bind(queue, direct, "k")
    kind = {"x-delayed-type": "direct"}
    channel.exchange_declare(later, "x-delayed-message", arguments=kind)

    def explain(*words, expect=0):
        return json.loads(run("route", *words, "--json", url=url, expect=expect)[0])

    answer = explain(direct, "k")
    (only,) = answer["exchanges"]
    assert only["alternate"] == {"exchange": other, "exists": True, "taken": False}
    answer = explain(direct, "j", "-H", "kind=order")
    assert answer["exchanges"][0]["alternate"]["taken"]
    assert answer["exchanges"][1]["bindings"][0]["taken"]
    assert [q["name"] for q in answer["queues"]] == [queue]
    answer = explain(direct, "j", "-H", "kind=offer", expect=4)
    assert not answer["exchanges"][1]["bindings"][0]["fits"] and answer["queues"] == []
    stop = explain(later, "k", "--delay", "5s")["exchanges"][0]
    assert (stop["ending"], stop["delay"]) == ("delayed", 5000)
    stop = explain(later, "k", "-H", "x-delay=soon", expect=4)["exchanges"][0]
    assert stop["ending"] == "refused" and "x-delay" in stop["reason"]


def test_very_many_bindings_are_counted_and_some_are_told(url, channel, fresh, queue):
    exchange = fresh("wide")
    channel.exchange_declare(exchange, "topic")
    connection = channel.connection
    for number in range(3000):
        channel._impl.queue_bind(queue, exchange, f"k.{number}", callback=None)
    channel.queue_bind(queue, exchange, "#")
    connection.process_data_events(0)
    answer = json.loads(run("route", exchange, "k.77", "--json", url=url)[0])
    stop = answer["exchanges"][0]
    assert stop["bindings_count"] == 3001
    taken = {b["routing_key"] for b in stop["bindings"] if b["taken"]}
    assert taken == {"k.77", "#"} and len(stop["bindings"]) == 202


def test_requests_that_are_wrong_are_told_why(ask):
    answer, properties = ask(b"{", "one")
    assert "not JSON" in answer["error"]
    assert (properties.correlation_id, properties.content_type) == ("one", "application/json")
    assert 'a "command"' in ask(b"[]")[0]["error"]
    assert 'did you mean "route"' in ask(b'{"command":"rout"}')[0]["error"]
    assert '"message" is missing' in ask(b'{"command":"route"}')[0]["error"]
    assert "body" in ask(b'{"command":"route","message":{}}')[0]["error"]
    for size in (66_000, 3_000_000):
        assert "at most 65536 bytes" in ask(b"x" * size)[0]["error"]


def test_answers_go_to_any_queue(channel, queue):
    properties = pika.BasicProperties(reply_to=queue, correlation_id="q")
    channel.basic_publish("", ADDRESS, b"{}", properties)
    inbox = Inbox(channel, queue, auto_ack=True)
    inbox.wait(1, 10)
    assert json.loads(inbox.deliveries[0].body)["error"]


def test_a_request_without_a_place_for_the_answer_comes_back(channel):
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("", ADDRESS, b"{}", mandatory=True)


def test_requests_in_a_transaction_wait_for_its_commit(channel, queue):
    channel.tx_select()
    channel.basic_publish("", ADDRESS, b"{}", pika.BasicProperties(reply_to=queue))
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
    channel.tx_commit()
    inbox = Inbox(channel, queue)
    inbox.wait(1, 10)
    assert json.loads(inbox.deliveries[0].body)["error"]


def test_choices_and_refusals_are_read_at_a_glance(url, channel, fresh, queue):
    hashing, full, inner = fresh("hashing"), fresh("full"), fresh("inner")
    channel.exchange_declare(hashing, "x-consistent-hash")
    channel.queue_declare(full, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.queue_bind(queue, hashing, "1")
    channel.queue_bind(queue, hashing, "2")
    channel.exchange_declare(inner, "fanout", internal=True)
    lines = run("route", hashing, "a", url=url)[0].decode().splitlines()
    assert lines[1] == "  goes to one of the bindings, by a hash"
    assert lines[2].startswith(f'  + queue "{queue}"')
    assert lines[3].startswith(f'  - queue "{queue}"') and lines[3].endswith(": another one is chosen")
    out, _ = run("route", "", full, url=url, expect=4)
    assert out.decode().splitlines()[-1] == (
        f"  {full} (0 messages ready, 0 consumers): refuses it, since it is full"
    )
    out, _ = run("route", inner, "a", url=url, expect=4)
    assert "is refused: an internal exchange" in out.decode()
