"""The broker for the whole run, connections to it, and a deadline for every test.

    Tests/Clients/setup && .build/venv/bin/pytest Tests/Clients

MARTLET names the binary. MARTLET_TEST_URL=amqp://... runs the tests against a broker that runs
already, such as RabbitMQ; those that must restart it are skipped then.
"""

import os
import random
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pika
import pytest

from broker import Broker
from deadline import limit

DEADLINE_SECONDS = 60


class Address(NamedTuple):
    """An AMQP URL in parts, for the clients that want them."""

    host: str
    port: int
    user: str
    password: str
    vhost: str


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory):
    """The broker of the run; none when MARTLET_TEST_URL names one that runs already."""
    if os.environ.get("MARTLET_TEST_URL"):
        yield None
        return
    broker = Broker(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
        assert broker.stop() == 0, "the broker's exit status after SIGTERM"
    finally:
        broker.end()


@pytest.fixture(scope="session")
def session_url(shared_broker):
    """Where the broker of the run listens, for fixtures that outlive a test."""
    return shared_broker.url if shared_broker else os.environ["MARTLET_TEST_URL"]


@pytest.fixture
def url(shared_broker, session_url):
    """Where the broker listens. A test that asks after the broker has ended fails with its log."""
    if shared_broker:
        shared_broker.check()
    return session_url


@pytest.fixture
def own_broker(tmp_path):
    """A broker for one test, already started, that the test may kill and start again."""
    if os.environ.get("MARTLET_TEST_URL"):
        pytest.skip("the broker of MARTLET_TEST_URL cannot be restarted")
    broker = Broker(tmp_path)
    try:
        broker.start()
        yield broker
        assert broker.stop() == 0, "the broker's exit status after SIGTERM"
    finally:
        broker.end()


@pytest.fixture
def address(url):
    parts = urlsplit(url)
    vhost = unquote(parts.path[1:]) or "/"
    return Address(parts.hostname, parts.port or 5672, parts.username, parts.password, vhost)


@pytest.fixture
def fresh(url):
    """Makes names that nobody else uses; queues and exchanges so called go after the test."""
    made = []

    def name(stem="test"):
        made.append(f"{stem}-{random.getrandbits(48):012x}")
        return made[-1]

    yield name
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for used in made:
            channel.queue_delete(used)
            channel.exchange_delete(used)


@pytest.fixture
def connect(url, fresh):
    """Opens pika blocking connections, with parameters of choice, that the end of the test closes.

    It asks for `fresh` to be taken down before it: an open connection holds its exclusive queues.
    """
    opened = []

    def open_connection(**changes):
        parameters = pika.URLParameters(url)
        parameters.blocked_connection_timeout = 30
        parameters.socket_timeout = 10
        for name, value in changes.items():
            setattr(parameters, name, value)
        opened.append(pika.BlockingConnection(parameters))
        return opened[-1]

    yield open_connection
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def channel(connection):
    return connection.channel()


@pytest.fixture
def queue(channel, fresh):
    """A queue for one test: not durable, not exclusive."""
    name = fresh("queue")
    channel.queue_declare(name)
    return name


@pytest.fixture(autouse=True)
def deadline(request):
    """Stops a test that takes too long, wherever it waits."""
    marker = request.node.get_closest_marker("deadline")
    with limit(marker.args[0] if marker else DEADLINE_SECONDS):
        yield
