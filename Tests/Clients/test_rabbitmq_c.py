"""rabbitmq-c's command-line tools, as shell scripts use them."""

import shutil
import subprocess

import pytest
from pika.exceptions import UnroutableError

pytestmark = pytest.mark.skipif(
    shutil.which("amqp-publish") is None, reason="amqp-tools is not installed"
)

SECONDS = 20


@pytest.fixture
def tool(url):
    """Runs one of the tools against the broker and returns its output."""

    def run(name, *arguments, stdin="", status=0):
        command = [f"amqp-{name}", f"--url={url}", *arguments]
        done = subprocess.run(command, input=stdin.encode(), capture_output=True, timeout=SECONDS)
        assert done.returncode == status, f"{command}: {done.stderr.decode()}"
        return done.stdout.decode()

    return run


@pytest.fixture
def tool_queue(tool, fresh):
    name = fresh("queue")
    assert tool("declare-queue", "-d", "-q", name).strip() == name
    return name


def test_publish_and_get(tool, tool_queue):
    tool("publish", "-r", tool_queue, "-p", "-b", "hello")
    tool(
        "publish",
        "-r",
        tool_queue,
        "-C",
        "text/plain",
        "-H",
        "kind: test",
        stdin="from standard input",
    )
    assert tool("get", "-q", tool_queue) == "hello"
    assert tool("get", "-q", tool_queue) == "from standard input"
    tool("get", "-q", tool_queue, status=2)


def test_lines_and_consume(tool, tool_queue):
    lines = "".join(f"line {number}\n" for number in range(100))
    tool("publish", "-r", tool_queue, "-l", stdin=lines)
    assert tool("consume", "-q", tool_queue, "-c", "60", "cat") == "".join(
        lines.splitlines(True)[:60]
    )
    assert tool("consume", "-q", tool_queue, "-A", "-p", "5", "-c", "40", "cat") == "".join(
        lines.splitlines(True)[60:]
    )


def test_consume_through_a_binding(url, tool, connection, fresh):
    exchange = fresh("exchange")
    channel = connection.channel()
    channel.exchange_declare(exchange, "topic")
    process = subprocess.Popen(
        ["amqp-consume", f"--url={url}", "-e", exchange, "-r", "log.#", "-x", "-c", "2", "cat"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        # Until the tool has bound its queue, publishing finds none.
        channel.confirm_delivery()
        assert b"Server provided queue name" in process.stderr.readline()
        publish_until_routed(channel, exchange, "log.first", b"first\n")
        channel.basic_publish(exchange, "metric", b"other\n")
        channel.basic_publish(exchange, "log.second", b"second\n")
        output, _ = process.communicate(timeout=SECONDS)
        assert (output, process.returncode) == (b"first\nsecond\n", 0)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def publish_until_routed(channel, exchange, key, body):
    while True:
        try:
            channel.basic_publish(exchange, key, body, mandatory=True)
            return
        except UnroutableError:
            channel.connection.process_data_events(time_limit=0.02)


def test_delete_counts_messages(tool, tool_queue):
    tool("publish", "-r", tool_queue, "-b", "one")
    tool("publish", "-r", tool_queue, "-b", "two")
    assert tool("delete-queue", "-q", tool_queue).strip() == "2"


def test_server_named_queue(tool):
    name = tool("declare-queue", "-q", "").strip()
    assert name.startswith("amq.gen-")
    tool("delete-queue", "-q", name)


def test_large_message(tool, tool_queue):
    body = "0123456789abcdef" * 65536
    tool("publish", "-r", tool_queue, stdin=body)
    assert tool("get", "-q", tool_queue) == body


def test_error_is_told(url, tool, fresh):
    done = subprocess.run(
        ["amqp-get", f"--url={url}", "-q", fresh()], capture_output=True, timeout=SECONDS
    )
    assert done.returncode != 0
    assert b"NOT_FOUND - no queue" in done.stderr
