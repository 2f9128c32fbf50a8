"""kombu: producers, consumers, simple queues, retries."""

import socket
import time
from collections import deque

import kombu
import pytest
from kombu.exceptions import OperationalError
from kombu.mixins import ConsumerMixin


@pytest.fixture
def connection(url, fresh):
    with kombu.Connection(url, connect_timeout=10) as opened:
        yield opened


def drain(connection, received, count, seconds=10):
    deadline = time.monotonic() + seconds
    while len(received) < count:
        connection.drain_events(timeout=max(0.01, deadline - time.monotonic()))


def test_producer_and_consumer(connection, fresh):
    exchange = kombu.Exchange(fresh("exchange"), "direct", durable=True)
    queue = kombu.Queue(fresh("queue"), exchange, routing_key="key", durable=True)
    received = []

    def receive(body, message):
        received.append((body, message.headers, message.delivery_info["routing_key"]))
        message.ack()

    producer = connection.Producer()
    for number in range(50):
        producer.publish(
            {"number": number},
            exchange=exchange,
            routing_key="key",
            declare=[queue],
            headers={"kind": "count"},
            delivery_mode="persistent",
        )
    with connection.Consumer([queue], callbacks=[receive]):
        drain(connection, received, 50)
    assert received == [({"number": n}, {"kind": "count"}, "key") for n in range(50)]
    assert queue(connection.channel()).queue_declare(passive=True).message_count == 0


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("compression", [None, "zlib", "bzip2"])
def test_serializers_and_compression(connection, fresh, serializer, compression):
    queue = kombu.Queue(fresh("queue"), auto_delete=True)
    received = []
    body = {"text": "grün", "list": [1, None, True], "long": "x" * 10000}
    connection.Producer(serializer=serializer).publish(
        body, routing_key=queue.name, declare=[queue], compression=compression
    )
    with connection.Consumer(
        [queue], callbacks=[lambda b, m: received.append(b)], no_ack=True, accept=["json", "pickle"]
    ):
        drain(connection, received, 1)
    assert received == [body]


def test_topic_and_fanout(connection, fresh):
    topic = kombu.Exchange(fresh("topic"), "topic", durable=False)
    fanout = kombu.Exchange(fresh("fanout"), "fanout", durable=False)
    queues = {
        "errors": kombu.Queue(fresh("errors"), topic, routing_key="#.error", exclusive=True),
        "disk": kombu.Queue(fresh("disk"), topic, routing_key="disk.*", exclusive=True),
        "left": kombu.Queue(fresh("left"), fanout, exclusive=True),
        "right": kombu.Queue(fresh("right"), fanout, exclusive=True),
    }
    received = []
    names = {queue.name: name for name, queue in queues.items()}

    def receive(body, message):
        received.append((names[tags[message.delivery_info["consumer_tag"]]], body))

    with connection.Consumer(list(queues.values()), callbacks=[receive], no_ack=True) as consumer:
        tags = {tag: name for name, tag in consumer._active_tags.items()}
        producer = connection.Producer()
        for key in ("disk.error", "disk.info", "net.error"):
            producer.publish(key, exchange=topic, routing_key=key)
        producer.publish("all", exchange=fanout)
        drain(connection, received, 6)
    assert sorted(received) == [
        ("disk", "disk.error"),
        ("disk", "disk.info"),
        ("errors", "disk.error"),
        ("errors", "net.error"),
        ("left", "all"),
        ("right", "all"),
    ]


def test_simple_queue(connection, fresh):
    with connection.SimpleQueue(fresh("simple")) as simple:
        for number in range(10):
            simple.put({"number": number})
        received = [simple.get(timeout=5) for _ in range(10)]
        assert [message.payload["number"] for message in received] == list(range(10))
        for message in received:
            message.ack()
        with pytest.raises(simple.Empty):
            simple.get(timeout=0.2)


def test_simple_queue_counts_and_clears(connection, fresh):
    connection.transport_options = {"confirm_publish": True}
    with connection.SimpleQueue(fresh("simple")) as simple:
        for number in range(10):
            simple.put(number)
        assert simple.qsize() == 10
        assert simple.clear() == 10
        assert simple.qsize() == 0


def test_simple_queue_requeues(connection, fresh):
    with connection.SimpleQueue(fresh("simple")) as simple:
        simple.put("first")
        simple.put("second")
        simple.get(timeout=5).ack()
        simple.get(timeout=5).requeue()
        message = simple.get(timeout=5)
        assert message.payload == "second" and message.delivery_info["redelivered"]
        message.ack()


def test_simple_buffer_is_transient(connection, fresh):
    with connection.SimpleBuffer(fresh("buffer")) as buffer:
        buffer.put("body")
        assert buffer.get(timeout=5).payload == "body"


def test_reject_and_requeue(connection, fresh):
    queue = kombu.Queue(fresh("queue"))
    received = deque()
    connection.Producer().publish("body", routing_key=queue.name, declare=[queue])
    with connection.Consumer([queue], callbacks=[lambda b, m: received.append(m)]):
        drain(connection, received, 1)
        received[0].requeue()
        drain(connection, received, 2)
        assert received[1].delivery_info["redelivered"]
        received[1].reject()
    assert queue(connection.channel()).get() is None


def test_quality_of_service(connection, fresh):
    queue = kombu.Queue(fresh("queue"))
    producer = connection.Producer()
    for number in range(10):
        producer.publish(number, routing_key=queue.name, declare=[queue])
    received = []
    with connection.Consumer(
        [queue], callbacks=[lambda b, m: received.append(m)], prefetch_count=3
    ) as c:
        drain(connection, received, 3)
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.2)
        c.qos(prefetch_count=5)
        received[0].ack()
        drain(connection, received, 4)


def test_draining_nothing_times_out(connection, fresh):
    queue = kombu.Queue(fresh("queue"), exclusive=True)
    with connection.Consumer([queue], callbacks=[]):
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.2)


def test_nobody_listening_is_an_operational_error(own_broker):
    assert own_broker.stop() == 0
    with kombu.Connection(own_broker.url, connect_timeout=2) as connection:
        with pytest.raises(OperationalError):
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    own_broker.start()


def test_ensure_publishes_again_after_a_restart(own_broker):
    with kombu.Connection(
        own_broker.url, connect_timeout=5, transport_options={"confirm_publish": True}
    ) as connection:
        queue = kombu.Queue("durable", durable=True)
        errors = []
        producer = connection.Producer()
        policy = {"max_retries": 20, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.5}
        for number in range(10):
            if number == 5:
                own_broker.kill()
                own_broker.start()
            producer.publish(
                number,
                routing_key="durable",
                declare=[queue],
                retry=True,
                retry_policy={**policy, "errback": lambda error, _: errors.append(error)},
            )
        assert errors
        bound = queue(connection.channel())
        assert [bound.get(no_ack=True).payload for _ in range(10)] == list(range(10))
        assert bound.get() is None


class Collector(ConsumerMixin):
    """A kombu consumer as programs write it: it reconnects, and stops when it has what it wants."""

    def __init__(self, connection, queue, wanted, on_first):
        self.connection = connection
        self.connection.transport_options = {"interval_start": 0.1, "interval_max": 0.5}
        self.queue, self.wanted, self.on_first = queue, wanted, on_first
        self.received = set()

    def get_consumers(self, consumer_class, channel):
        channel.basic_qos(0, 1, False)
        return [consumer_class([self.queue], callbacks=[self.receive])]

    def receive(self, body, message):
        self.received.add(body)
        if len(self.received) == 1 and self.on_first:
            # The message that is being handled is not acknowledged yet when the broker goes.
            action, self.on_first = self.on_first, None
            action()
        message.ack()
        self.should_stop = len(self.received) == self.wanted


def test_consumer_mixin_reconnects(own_broker):
    queue = kombu.Queue("durable", durable=True)
    with kombu.Connection(
        own_broker.url, transport_options={"confirm_publish": True}
    ) as connection:
        producer = connection.Producer()
        for number in range(20):
            producer.publish(number, routing_key="durable", declare=[queue])

    def restart():
        own_broker.kill()
        own_broker.start()

    with kombu.Connection(own_broker.url) as connection:
        collector = Collector(connection, queue, 20, restart)
        collector.run()
    assert collector.received == set(range(20))
