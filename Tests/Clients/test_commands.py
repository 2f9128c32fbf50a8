"""The command line, as people and scripts use it."""

import glob
import json
import signal
import subprocess
from datetime import datetime, timezone
from decimal import Decimal

import pika
import pytest

from broker import binary, environment
from inbox import drain
from watched_broker import eventually, serving


def run(*words, url=None, stdin=b"", expect=0, **variables):
    """Runs a command to its end; its output, and what it said."""
    given = environment() | variables
    if url:
        given["MARTLET_URL"] = url
    result = subprocess.run(
        [str(binary()), *words], input=stdin, capture_output=True, timeout=30, env=given
    )
    said = result.stderr.decode()
    assert result.returncode == expect, (result.returncode, said)
    return result.stdout, said


def test_bench_reads_a_stream_from_where_its_consumers_are_told_to(url, fresh):
    name = fresh("bench")
    words = ["bench", "--queue", name, "--queue-type", "stream", "--durable", "--persistent", "--json"]
    words += ["--messages", "500", "--keep"]
    run(*words, "--consumers", "0", url=url)
    readers = ["--publishers", "0", "--consumers", "2", "--prefetch", "50", "--ack-every", "10"]
    readers += ["--consumer-arg", "x-stream-offset=first", "--messages", "1000", "--duration", "20s"]
    out, _ = run(*words, *readers, url=url)
    report = json.loads(out)
    assert report["delivered"]["total"] == 1000


# Arguments and variables


def test_arguments_survive_a_library_that_moves_the_environment():
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        pytest.skip("libfaketime is not installed")
    out, _ = run("--version", LD_PRELOAD=found[0], FAKETIME="+1h")
    assert out.startswith(b"martlet ")


def test_empty_and_unknown_variables_are_refused():
    for words in (["get", "q"], ["serve", "--print-config"], ["publish", "-k", "q", "-b", "x"]):
        _, said = run(*words, MARTLET_URL="", expect=2)
        assert "MARTLET_URL" in said and "empty" in said
        _, said = run(*words, MARTLET_PASWORD="secret", expect=2)
        assert 'MARTLET_PASWORD: there is no such option; did you mean "MARTLET_PASSWORD"?' in said
        _, said = run(*words, MARTLET_BUILD_STAGE="2", expect=2)
        assert "MARTLET_BUILD_STAGE: there is no such option; unset it" in said
    run("--help", MARTLET_PASWORD="secret")
    run("serve", "--print-config", MARTLET_PORT_5672_TCP_PROTO="tcp")


@pytest.mark.parametrize("word", ["5672", "localhost:", "localhost:70000", "::1:5672", "a:b"])
def test_mistakes_with_listen_are_mistakes_of_usage(word, tmp_path):
    _, said = run("serve", "--listen", word, "--data", str(tmp_path / "data"), expect=2)
    assert f'--listen: "{word}" is not an address; write HOST:PORT' in said
    assert not (tmp_path / "data").exists()


# Publishing


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("confirm", [[], ["--confirm"]])
def test_blocked_publisher_ends_at_the_first_signal(tmp_path, number, code, confirm):
    with serving(tmp_path, "--memory-limit", "1MiB", "--transient-memory", "1TiB") as broker:
        run("declare", "queue", "full", url=broker.url)
        words = ["publish", "-k", "full", "-b", "x" * 10_000, "--count", "1000000", *confirm]
        publisher = subprocess.Popen(
            [str(binary()), *words],
            stderr=subprocess.PIPE,
            env=environment() | {"MARTLET_URL": broker.url},
        )
        try:
            broker.expect_line("is blocked: low on memory")
            said = publisher.stderr.readline().decode()
            assert "the broker takes no messages at the moment (low on memory)" in said
            publisher.send_signal(number)
            assert publisher.wait(20) == code
            said = publisher.stderr.read().decode()
            assert "had been sent" in said and "interrupted" in said
            assert ("of them were confirmed" in said) == bool(confirm)
        finally:
            publisher.kill()
            publisher.wait()
            publisher.stderr.close()


def test_headers_have_the_type_that_was_written(url, channel, queue):
    run(
        *("publish", "-k", queue, "-b", "x", "-H", "zip=00123", "-H", "n=123"),
        *("-H", "at:timestamp=2023-11-14T22:13:20Z", "-H", "also:timestamp=1700000000"),
        url=url,
    )
    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    moment = datetime.fromtimestamp(1_700_000_000, timezone.utc).replace(tzinfo=None)
    headers = {
        name: value.replace(tzinfo=None) if isinstance(value, datetime) else value
        for name, value in properties.headers.items()
    }
    assert headers == {"zip": "00123", "n": 123, "at": moment, "also": moment}


def test_delay_expiration_and_priority_are_what_the_broker_acts_on(url, channel, queue):
    words = ["publish", "-k", queue, "-b", "x"]
    run(*words, "--delay", "1500ms", "--expiration", "1m", "--priority", "7", url=url)
    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert properties.headers == {"x-delay": 1500}
    assert (properties.expiration, properties.priority) == ("60000", 7)
    run(*words, "--delay", "365000", "--header", "n=1", url=url)
    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert properties.headers == {"n": 1, "x-delay": 365000}
    _, said = run(*words, "--delay", "1s", "--header", "x-delay=5", url=url, expect=2)
    assert "--delay and --header x-delay exclude each other" in said
    _, said = run(*words, "--delay", "soon", url=url, expect=2)
    assert '--delay: "soon" is not a duration' in said


def test_a_delayed_message_arrives_when_it_is_due(url, channel, queue, fresh):
    exchange = fresh("later")
    kind = {"x-delayed-type": "direct"}
    channel.exchange_declare(exchange, "x-delayed-message", arguments=kind)
    channel.queue_bind(queue, exchange, "k")
    run("publish", exchange, "-k", "k", "-b", "second", "--delay", "600ms", url=url)
    run("publish", exchange, "-k", "k", "-b", "first", "--delay", "300", url=url)
    assert channel.basic_get(queue) == (None, None, None)
    assert [d.body for d in drain(channel, queue, 2)] == [b"first", b"second"]


PROPERTIES = pika.BasicProperties(
    content_type="text/plain",
    content_encoding="utf-8",
    delivery_mode=2,
    priority=7,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    message_id="m",
    timestamp=1_700_000_000,
    type="t",
    user_id="guest",
    app_id="a",
    cluster_id="k",
    headers={
        "int": 5,
        "long": 1 << 40,
        "text": "ü",
        "bytes": b"\x00\xff",
        "decimal": Decimal("12.34"),
        "when": datetime(2023, 11, 14, 22, 13, 20),
        "list": [1, "a", None, {"deep": True}],
    },
)


@pytest.mark.parametrize("body", [b"text\n", b"\x00\xff\xfe", b"", "ü\u2028".encode()])
def test_what_one_command_prints_the_other_takes(url, channel, queue, fresh, body):
    other = fresh("other")
    channel.queue_declare(other)
    for _ in range(4):
        channel.basic_publish("", queue, body, PROPERTIES)
    # As the client itself reads what it has written.
    _, sent, _ = channel.basic_get(queue, auto_ack=True)
    lines, _ = run("subscribe", queue, "--count", "3", "--format", "json", url=url)
    assert len(lines.splitlines()) == 3
    # To where they came from, and elsewhere with something changed.
    run("publish", "--format", "json", "--confirm", url=url, stdin=lines)
    changed = ["--key", other, "-H", "int=6", "--priority", "1"]
    _, said = run("publish", "--format", "json", *changed, url=url, stdin=lines)
    assert f'3 messages to key "{other}"' in said
    for _ in range(3):
        _, properties, got = channel.basic_get(queue, auto_ack=True)
        assert got == body and properties == sent
        _, properties, got = channel.basic_get(other, auto_ack=True)
        assert got == body and properties.priority == 1
        assert properties.headers == sent.headers | {"int": 6}
    # And a third time, through the line itself.
    run("publish", "--format", "json", url=url, stdin=lines)
    again, _ = run("get", queue, "--count", "3", "--format", "json", url=url)
    for one, two in zip(lines.splitlines(), again.splitlines()):
        two = json.loads(two)
        del two["remaining"]
        assert json.loads(one) == two


def test_line_that_is_no_message_is_named(url, queue):
    lines = b'{"key":"%s","body":"x"}\n\n{"key":1}\n' % queue.encode()
    _, said = run("publish", "--format", "json", url=url, stdin=lines, expect=1)
    assert 'line 3: "key" is text, not a number' in said


# Declaring and deleting


def test_deleting_what_is_not_there_is_told(url, fresh):
    for kind in ("queue", "exchange"):
        name = fresh(kind)
        _, said = run("delete", kind, name, url=url)
        assert said == f'there is no {kind} "{name}"\n'
        run("declare", kind, name, *(["--type", "topic"] if kind == "exchange" else []), url=url)
        _, said = run("delete", kind, name, url=url)
        assert said == f'deleted {kind} "{name}"\n'


def test_passive_declaration_says_what_it_found(url, channel, queue, fresh):
    channel.basic_publish("", queue, b"x")
    out, said = run("declare", "queue", queue, "--passive", url=url)
    assert json.loads(out) == {"queue": queue, "messages": 1, "consumers": 0} and said == ""
    exchange = fresh("exchange")
    _, said = run("declare", "exchange", exchange, "--passive", url=url, expect=1)
    assert f"no exchange '{exchange}'" in said
    channel.exchange_declare(exchange, "topic")
    _, said = run("declare", "exchange", exchange, "--passive", url=url)
    assert said == f'exchange "{exchange}" is there\n'
    for words in (["--durable"], ["--type", "fanout"], ["--arg", "a=b"]):
        _, said = run("declare", "exchange", exchange, "--passive", *words, url=url, expect=2)
        assert words[0] in said
    run("declare", "queue", "--passive", url=url, expect=2)
    run("declare", "exchange", exchange, url=url, expect=2)


def test_reader_that_takes_a_count_leaves_the_others(url, channel, queue):
    for number in range(10):
        channel.basic_publish("", queue, b"%d" % number)
    out, _ = run("subscribe", queue, "--count", "3", url=url)
    assert out == b"0\n1\n2\n"
    eventually(
        lambda: channel.queue_declare(queue, passive=True).method.message_count == 7,
        "return of the others",
    )


# Filters


def test_bindings_have_filters(url, channel, fresh):
    exchange, queue = fresh("x"), fresh("q")
    run("declare", "exchange", exchange, "--type", "topic", url=url)
    run("declare", "queue", queue, url=url)
    words = [exchange, queue, "--key", "#", "--filter", "level = 'error' AND retries > 3"]
    run("bind", *words, url=url)
    for retries in (3, 4):
        run("publish", exchange, "--key", "k", "--header", "level=error",
            "--header", f"retries={retries}", "--body", str(retries), url=url)
    assert run("get", queue, url=url)[0] == b"4\n"
    run("get", queue, url=url, expect=3)
    run("unbind", *words, url=url)
    run("publish", exchange, "--key", "k", "--header", "level=error", "--header", "retries=4",
        "--body", "4", url=url)
    run("get", queue, url=url, expect=3)
    _, said = run("bind", exchange, queue, "--filter", "level = )", url=url, expect=1)
    assert "column 9: expected a value, got ')'" in said
    _, said = run("bind", exchange, queue, "--filter", "a", "--arg", "x-filter=b", url=url, expect=2)
    assert "--filter and --arg x-filter exclude each other" in said


def test_an_exchange_is_watched_through_a_filter(url, channel, fresh):
    exchange = fresh("x")
    channel.exchange_declare(exchange, "fanout")
    with subprocess.Popen(
        [str(binary()), "subscribe", "--exchange", exchange, "--filter", "body LIKE '%storm%'",
         "--count", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment() | {"MARTLET_URL": url},
    ) as watcher:
        assert b"subscribed" in watcher.stderr.readline()
        channel.basic_publish(exchange, "", b"no wind")
        channel.basic_publish(exchange, "", b"a storm is coming")
        assert watcher.communicate(timeout=30)[0] == b"a storm is coming\n"


def test_a_stream_is_read_through_a_filter(url, channel, fresh):
    stream, queue = fresh("s"), fresh("q")
    channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
    for body in [b"no wind", b"a storm is coming", b"fine", b"the storm is over"]:
        channel.basic_publish("", stream, body)
    words = ["subscribe", stream, "--arg", "x-stream-offset=first", "--count", "2"]
    out, _ = run(*words, "--filter", "body LIKE '%storm%'", url=url)
    assert out == b"a storm is coming\nthe storm is over\n"
    _, said = run(*words, "--filter", "body LIKE", url=url, expect=1)
    assert f"invalid arg 'x-filter' for queue '{stream}' in vhost '/': column 10: " in said
    # Nothing is taken that a filter was to keep back.
    channel.queue_declare(queue, exclusive=False)
    channel.basic_publish("", queue, b"kept")
    _, said = run("subscribe", queue, "--filter", "body = 'x'", url=url, expect=1)
    assert f"invalid arg 'x-filter' for queue '{queue}' in vhost '/'" in said
    drain(channel, queue, 1)
    channel.queue_delete(queue)
    channel.queue_delete(stream)
