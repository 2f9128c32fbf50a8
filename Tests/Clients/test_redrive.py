"""Dead letters that `martlet redrive` sends home."""

import contextlib
import subprocess

import pika
import pytest

from broker import binary, environment
from inbox import drain
from test_commands import run
from watched_broker import eventually


@pytest.fixture
def dead(channel, fresh):
    """A queue for dead letters, and how to let messages die into it."""

    class Dead:
        queue = fresh("dead")

        def jobs(self):
            """A queue whose rejected messages come here."""
            name = fresh("jobs")
            arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.queue}
            channel.queue_declare(name, arguments=arguments)
            return name

        def reject(self, *queues):
            """Rejects the next message of each queue."""
            before = self.count()
            for queue in queues:
                method, _, _ = channel.basic_get(queue)
                channel.basic_reject(method.delivery_tag, requeue=False)
            eventually(lambda: self.count() == before + len(queues), "dead letters")

        def count(self):
            return channel.queue_declare(self.queue, passive=True).method.message_count

        def bodies(self):
            return [d.body for d in drain(channel, self.queue, self.count())]

    made = Dead()
    channel.queue_declare(made.queue)
    return made


def headers(count):
    return pika.BasicProperties(headers={"n": count}, message_id=str(count), delivery_mode=2)


def test_dead_letters_go_back_through_their_exchange_and_start_anew(channel, fresh, dead, url):
    exchange, jobs, audit = fresh("events"), dead.jobs(), fresh("audit")
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(jobs, exchange, "order.#")
    for number in range(250):
        channel.basic_publish(exchange, f"order.{number}", str(number), headers(number))
    dead.reject(*[jobs] * 250)
    # Whoever listens to the exchange sees that they are published again.
    channel.queue_declare(audit)
    channel.queue_bind(audit, exchange, "order.#")
    _, said = run("redrive", dead.queue, url=url)
    assert "redrove 250 messages to where they came from" in said
    assert dead.count() == 0
    for queue in (jobs, audit):
        for number in range(250):
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            assert (method.exchange, method.routing_key) == (exchange, f"order.{number}")
            assert (body, properties.headers) == (str(number).encode(), {"n": number})
            assert (properties.message_id, properties.delivery_mode) == (str(number), 2)


def test_what_came_by_the_default_exchange_goes_into_its_queue_alone(channel, dead, url):
    jobs, other = dead.jobs(), dead.jobs()
    channel.basic_publish("", jobs, b"x", pika.BasicProperties(headers={"CC": [other]}))
    dead.reject(jobs)
    run("redrive", dead.queue, "--home", url=url)
    assert [len(drain(channel, queue, 1)) for queue in (jobs, other)] == [1, 1]
    assert channel.basic_get(other) == (None, None, None)


def test_home_is_where_a_message_died_first(channel, fresh, dead, url):
    """It has died in the queue for retries too, and that twice."""
    jobs, retry, exchange = fresh("jobs"), dead.jobs(), fresh("events")
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry}
    channel.queue_declare(jobs, arguments=arguments)
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(jobs, exchange)
    channel.basic_publish(exchange, "k", b"x")
    method, _, _ = channel.basic_get(jobs)
    channel.basic_reject(method.delivery_tag, requeue=False)
    dead.reject(retry)
    run("redrive", dead.queue, url=url)
    method, properties, _ = channel.basic_get(jobs, auto_ack=True)
    assert (method.exchange, method.routing_key) == (exchange, "k")
    assert not properties.headers


def test_what_cannot_go_home_stays_in_its_place_and_is_told(channel, fresh, dead, url):
    bound, gone, jobs = fresh("bound"), fresh("gone"), dead.jobs()
    for exchange in (bound, gone):
        channel.exchange_declare(exchange, "direct")
        channel.queue_bind(jobs, exchange, "k")
    sent = [(bound, b"1"), (gone, b"2"), ("", b"3"), (bound, b"4")]
    for exchange, body in sent:
        channel.basic_publish(exchange, "k" if exchange else jobs, body)
    dead.reject(*[jobs] * 3)
    channel.basic_publish("", dead.queue, b"never died")
    dead.reject(jobs)
    channel.queue_unbind(jobs, bound, "k")
    channel.exchange_delete(gone)
    _, said = run("redrive", dead.queue, url=url, expect=4)
    assert "redrove 1 message to" in said
    assert f'2 messages stay: no queue takes what exchange "{bound}" routes with key "k"' in said
    assert f'1 message stays: there is no exchange "{gone}"' in said
    assert "no header x-death says where" in said
    assert [d.body for d in drain(channel, jobs, 1)] == [b"3"]
    assert dead.bodies() == [b"1", b"2", b"never died", b"4"]


def test_some_of_them_go_to_another_exchange(channel, fresh, dead, url):
    jobs, other, target = dead.jobs(), fresh("other"), fresh("target")
    channel.exchange_declare(target, "direct")
    channel.queue_declare(other)
    channel.queue_bind(other, target, jobs)
    for number in range(6):
        channel.basic_publish("", jobs, str(number), headers(number))
    dead.reject(*[jobs] * 6)
    words = ["redrive", dead.queue, "--to", target, "--filter", "n <> 1 AND body < '5'"]
    _, said = run(*words, "--count", "3", "--keep-history", url=url)
    assert "redrove 3 messages" in said and "1 message stays: the filter is not true" in said
    for number in (0, 2, 3):
        _, properties, body = channel.basic_get(other, auto_ack=True)
        assert body == str(number).encode()
        assert properties.headers["x-death"][0]["queue"] == jobs
    assert dead.count() == 3
    _, said = run(*words, "--count", "3", url=url, expect=3)
    assert "redrove 1 message to" in said
    assert dead.bodies() == [b"1", b"5"]


def test_a_full_queue_refuses_and_nothing_is_lost(channel, fresh, dead, url):
    jobs = fresh("jobs")
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead.queue,
        "x-max-length": 1,
        "x-overflow": "reject-publish",
    }
    channel.queue_declare(jobs, arguments=arguments)
    for body in (b"1", b"2"):
        channel.basic_publish("", jobs, body)
        dead.reject(jobs)
    _, said = run("redrive", dead.queue, url=url, expect=1)
    assert "PRECONDITION_FAILED" in said and "redrove none" in said
    assert dead.bodies() == [b"1", b"2"]


def test_mistakes_are_mistakes_of_usage(url):
    _, said = run("redrive", "q", "--home", "--to", "x", url=url, expect=2)
    assert "--home and --to exclude each other" in said
    _, said = run("redrive", "q", "--filter", "n >", url=url, expect=2)
    assert "--filter: column" in said
    run("redrive", "q", "--count", "0", url=url, expect=2)
    _, said = run("redrive", "no-such-queue", url=url, expect=1)
    assert "no queue 'no-such-queue'" in said


@pytest.mark.parametrize("victim", ["broker", "command"])
def test_a_crash_leaves_each_message_in_one_place(own_broker, victim):
    count = 20_000
    url = own_broker.url
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare("dead", durable=True)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    channel.queue_declare("jobs", durable=True, arguments=arguments)
    lines = b"".join(b"%d\n" % number for number in range(count))
    run("publish", "-k", "jobs", "--lines", "--persistent", "--confirm", stdin=lines, url=url)
    run("subscribe", "jobs", "--ack", "reject", "--count", str(count), url=url)

    def ready(channel, queue):
        return channel.queue_declare(queue, passive=True).method.message_count

    eventually(lambda: ready(channel, "dead") == count, "dead letters")
    command = subprocess.Popen(
        [str(binary()), "redrive", "dead"],
        stderr=subprocess.DEVNULL,
        env=environment() | {"MARTLET_URL": url},
    )
    try:
        eventually(lambda: ready(channel, "jobs") >= count // 20, "messages that went home")
        if victim == "broker":
            own_broker.kill()
        else:
            command.kill()
    finally:
        command.kill()
        command.wait()
    with contextlib.suppress(pika.exceptions.AMQPError):
        connection.close()
    if victim == "broker":
        own_broker.start()
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        eventually(lambda: ready(channel, "dead") + ready(channel, "jobs") == count, "messages")
        sizes = [ready(channel, queue) for queue in ("dead", "jobs")]
        assert min(sizes) > 0, "it was to end in the middle"
        found = [
            d.body
            for queue, size in zip(("dead", "jobs"), sizes)
            for d in drain(channel, queue, size)
        ]
    assert sorted(map(int, found)) == list(range(count))
