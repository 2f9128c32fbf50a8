"""Streams as a client that uses pika meets them: every way to begin, partitions, groups, and what survives."""

import contextlib
import datetime
import time

import pika
import pytest

from broker import Broker
from inbox import Inbox, wait_for

STREAM = {"x-queue-type": "stream"}


def declare(channel, name, **arguments):
    named = {argument.replace("_", "-"): value for argument, value in arguments.items()}
    channel.queue_declare(name, durable=True, arguments={**STREAM, **named})


@pytest.fixture
def stream(channel, fresh):
    """A stream with one partition and the records 0 to 99, all of them confirmed."""
    name = fresh("stream")
    declare(channel, name)
    publish(channel.connection, name, range(100))
    return name


def publish(connection, stream, numbers, exchange="", key=None):
    channel = connection.channel()
    channel.confirm_delivery()
    for number in numbers:
        channel.basic_publish(exchange, key(number) if key else stream, b"%d" % number)
    channel.close()


class Reader(Inbox):
    """Reads a stream and acknowledges what it gets."""

    def __init__(self, connection, stream, prefetch=50, **arguments):
        channel = connection.channel()
        channel.basic_qos(prefetch_count=prefetch)
        self.acknowledges = True
        named = {argument.replace("_", "-"): value for argument, value in arguments.items()}
        super().__init__(channel, stream, arguments=named)

    def _receive(self, channel, method, properties, body):
        super()._receive(channel, method, properties, body)
        if self.acknowledges:
            channel.basic_ack(method.delivery_tag)

    @property
    def offsets(self):
        return [delivery.properties.headers["x-stream-offset"] for delivery in self.deliveries]

    @property
    def numbers(self):
        return [int(body) for body in self.bodies]

    def quiet(self, seconds=0.3):
        """Whatever comes within so many seconds."""
        self.channel.connection.process_data_events(seconds)
        return self


def test_reading_takes_nothing_away(connection, stream):
    for _ in range(3):
        reader = Reader(connection, stream, x_stream_offset="first")
        reader.wait(100)
        assert reader.numbers == list(range(100))
        assert reader.offsets == list(range(100))


@pytest.mark.parametrize(
    ("beginning", "first"),
    [("first", 0), ("last", 99), (0, 0), (57, 57), (-1, 99), (-30, 70), (-1000, 0), ("1h", 0)],
)
def test_a_reader_begins_where_it_likes(connection, stream, beginning, first):
    reader = Reader(connection, stream, x_stream_offset=beginning)
    reader.wait(100 - first)
    assert reader.quiet().numbers == list(range(first, 100))


@pytest.mark.parametrize("arguments", [{}, {"x_stream_offset": "next"}, {"x_stream_offset": 100}])
def test_a_reader_waits_for_what_comes(connection, stream, arguments):
    reader = Reader(connection, stream, **arguments)
    assert reader.quiet().numbers == []
    publish(connection, stream, range(100, 105))
    reader.wait(5)
    assert reader.numbers == [100, 101, 102, 103, 104]


def test_a_time_is_a_place_to_begin(connection, stream):
    time.sleep(1.2)
    noon = datetime.datetime.now(datetime.timezone.utc)
    time.sleep(1.2)
    publish(connection, stream, range(100, 110))
    reader = Reader(connection, stream, x_stream_offset=noon)
    reader.wait(10)
    assert reader.quiet().numbers == list(range(100, 110))
    future = Reader(
        connection, stream, x_stream_offset=noon + datetime.timedelta(hours=1)
    )
    assert future.quiet().numbers == []


def test_a_message_goes_to_queues_and_streams(connection, channel, fresh):
    exchange, queue, stream = fresh("exchange"), fresh("queue"), fresh("stream")
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue)
    declare(channel, stream)
    for name in [queue, stream]:
        channel.queue_bind(name, exchange, "logs.#")
    publish(connection, stream, range(50), exchange, lambda number: f"logs.{number}")
    reader = Reader(connection, stream, x_stream_offset="first")
    consumer = Inbox(channel, queue, auto_ack=True)
    assert [int(body) for body in (reader.wait(50) and reader.bodies)] == list(range(50))
    assert [int(delivery.body) for delivery in consumer.wait(50)] == list(range(50))


def test_keys_keep_their_order_in_partitions(connection, channel, fresh):
    exchange, stream = fresh("exchange"), fresh("stream")
    channel.exchange_declare(exchange, "fanout")
    declare(channel, stream, x_stream_partitions=4)
    channel.queue_bind(stream, exchange)
    publish(connection, stream, range(400), exchange, lambda number: f"key-{number % 20}")
    everything = Reader(connection, stream, x_stream_offset="first")
    everything.wait(400)
    assert sorted(everything.numbers) == list(range(400))
    for partition in range(4):
        reader = Reader(connection, stream, x_stream_offset="first", x_stream_partition=partition)
        mine = [
            int(delivery.body)
            for delivery in everything.deliveries
            if delivery.properties.headers["x-stream-partition"] == partition
        ]
        reader.wait(len(mine))
        assert reader.quiet(0.1).numbers == mine == sorted(mine)
        assert reader.offsets == list(range(len(mine)))


def test_members_of_a_group_share(connect, channel, fresh):
    stream, exchange = fresh("stream"), fresh("exchange")
    channel.exchange_declare(exchange, "fanout")
    declare(channel, stream, x_stream_partitions=4)
    channel.queue_bind(stream, exchange)
    members = [Reader(connect(), stream, x_stream_group="g") for _ in range(2)]
    publish(connect(), stream, range(200), exchange, lambda number: f"key-{number}")
    wait_for(
        members[0].channel.connection,
        lambda: members[1].quiet(0.05) and sum(len(m.deliveries) for m in members) >= 200,
        20,
        "200 deliveries",
    )
    shares = [
        {delivery.properties.headers["x-stream-partition"] for delivery in member.deliveries}
        for member in members
    ]
    assert sorted(len(share) for share in shares) == [2, 2] and shares[0].isdisjoint(shares[1])
    assert sorted(members[0].numbers + members[1].numbers) == list(range(200))


def test_a_rejected_record_comes_again(connection, stream):
    reader = Reader(connection, stream, prefetch=1, x_stream_offset=10)
    reader.acknowledges = False
    reader.wait(1)
    reader.channel.basic_nack(reader.tags[0], requeue=True)
    reader.wait(2)
    assert reader.numbers == [10, 10]
    assert reader.deliveries[1].method.redelivered


@pytest.fixture
def filtered(channel, fresh):
    """A stream of the records 0 to 99, every tenth with another level and each with a value but the last ten."""
    name = fresh("stream")
    declare(channel, name)
    publisher = channel.connection.channel()
    publisher.confirm_delivery()
    for number in range(100):
        headers = {"level": "error" if number % 10 == 3 else "info", "number": number}
        if number < 90:
            headers["x-stream-filter-value"] = ["eu", "us", "asia"][number % 3]
        publisher.basic_publish("", name, b"%d" % number, pika.BasicProperties(headers=headers))
    publisher.close()
    return name


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"x-filter": "level = 'error'"}, lambda n: n % 10 == 3),
        ({"x-filter": "number > 50 AND body LIKE '%7'"}, lambda n: n > 50 and n % 10 == 7),
        ({"x-stream-filter": "eu"}, lambda n: n < 90 and n % 3 == 0),
        ({"x-stream-filter": ["us", "asia"]}, lambda n: n < 90 and n % 3 > 0),
        (
            {"x-stream-filter": "us", "x-stream-match-unfiltered": True},
            lambda n: n >= 90 or n % 3 == 1,
        ),
        (
            {"x-stream-filter": "us", "x-filter": "number < 20"},
            lambda n: n < 20 and n % 3 == 1,
        ),
    ],
)
def test_a_reader_gets_what_it_asks_for(connection, filtered, arguments, wanted):
    expected = [number for number in range(100) if wanted(number)]
    reader = Reader(connection, filtered, x_stream_offset="first", **arguments)
    reader.wait(len(expected))
    assert reader.quiet().numbers == expected
    assert reader.offsets == expected, "offsets are the records' own"


def test_a_group_is_behind_what_it_does_not_want(connection, filtered):
    arguments = {"x-stream-group": "g", "x-filter": "level = 'error'"}
    reader = Reader(connection, filtered, x_stream_offset="first", **arguments)
    reader.wait(10)
    assert reader.quiet().numbers == list(range(3, 100, 10))
    reader.channel.close()
    everything = Reader(connection, filtered, x_stream_group="g")
    assert everything.quiet().numbers == []
    publish(connection, filtered, [100])
    everything.wait(1)
    assert everything.numbers == [100]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"x-filter": "level = )"}, "column 9: expected a value, got ')'"),
        ({"x-filter": 7}, "expected a string, got "),
        ({"x-stream-filter": 7}, "invalid arg 'x-stream-filter' for queue "),
        ({"x-stream-filter": ["a", 7]}, "expected strings in the array, got "),
        (
            {"x-stream-filter": "a", "x-stream-match-unfiltered": 1},
            "{unacceptable_type,signedint}",
        ),
    ],
)
def test_what_is_no_filter_is_refused(connection, filtered, arguments, said):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        Reader(connection, filtered, **arguments)
    assert raised.value.reply_code == 406
    assert said in raised.value.reply_text


def test_one_commit_reads_and_writes(connection, channel, fresh, stream):
    """Acknowledging in a group and publishing are one."""
    out = fresh("out")
    channel.queue_declare(out)
    reader = Reader(connection, stream, prefetch=10, x_stream_group="g", x_stream_offset="first")
    reader.acknowledges = False
    reader.channel.tx_select()
    reader.wait(10)
    for delivery in reader.deliveries[:5]:
        reader.channel.basic_publish("", out, delivery.body)
        reader.channel.basic_ack(delivery.method.delivery_tag)
    reader.channel.tx_commit()
    for delivery in reader.deliveries[5:10]:
        reader.channel.basic_publish("", out, delivery.body)
        reader.channel.basic_ack(delivery.method.delivery_tag)
    reader.channel.tx_rollback()
    reader.channel.close()
    again = Reader(connection, stream, x_stream_group="g")
    again.wait(95)
    assert again.numbers == list(range(5, 100))
    assert channel.queue_declare(out, passive=True).method.message_count == 5


def send(channel, stream, numbers, producer="p"):
    """Publishes numbers, each of them the message's sequence as well."""
    for number in numbers:
        headers = {"x-stream-producer": producer, "x-stream-sequence": number}
        channel.basic_publish("", stream, b"%d" % number, pika.BasicProperties(headers=headers))


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-stream-producer": 7, "x-stream-sequence": 1}, "unacceptable_type_in_header"),
        ({"x-stream-producer": "p"}, "a message of a producer lacks x-stream-sequence"),
        ({"x-stream-producer": "p", "x-stream-sequence": -1}, "{value_negative,-1}"),
    ],
)
def test_what_is_no_sequence_is_refused(connection, stream, headers, said):
    channel = connection.channel()
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        channel.basic_publish("", stream, b"x", pika.BasicProperties(headers=headers))
    assert raised.value.reply_code == 406
    assert said in raised.value.reply_text


@pytest.fixture
def small_broker(tmp_path):
    """A broker whose log is short, so that records move out of it soon."""
    broker = Broker(tmp_path, "--journal-window", "1MiB", "--segment-size", "1MiB")
    try:
        broker.start()
        yield broker
        assert broker.stop() == 0
    finally:
        broker.end()


def test_what_a_producer_sends_again_is_stored_once(small_broker):
    """Also where it does not know what of it has arrived when the broker is killed."""

    def connect(confirms):
        channel = pika.BlockingConnection(pika.URLParameters(small_broker.url)).channel()
        if confirms:
            channel.confirm_delivery()
        return channel

    count = 3000
    channel = connect(confirms=True)
    declare(channel, "s")
    send(channel, "s", range(100))
    send(channel, "s", range(50, 150))
    for begin in range(150, count, 950):
        channel = connect(confirms=False)
        send(channel, "s", range(begin, begin + 950))
        small_broker.kill()
        small_broker.start()
        send(connect(confirms=True), "s", range(max(0, begin - 100), begin + 950))
    channel = connect(confirms=True)
    assert channel.queue_declare("s", passive=True).method.message_count == count
    reader = Reader(channel.connection, "s", prefetch=1000, x_stream_offset="first")
    reader.wait(count, 20)
    assert reader.quiet().numbers == list(range(count))
    channel.connection.close()


def test_records_that_left_the_log_are_read_and_survive(small_broker):
    def connect():
        return pika.BlockingConnection(pika.URLParameters(small_broker.url))

    count, padding = 20_000, b"x" * 200
    connection = connect()
    channel = connection.channel()
    declare(channel, "s", x_stream_max_segment_size_bytes=1_000_000)
    for number in range(count):
        channel.basic_publish(
            "", "s", b"%d " % number + padding, pika.BasicProperties(headers={"number": number})
        )
    wait_for(
        connection,
        lambda: channel.queue_declare("s", passive=True).method.message_count == count,
        20,
        f"{count} records",
    )
    time.sleep(1)
    segments = list((small_broker.data / "journal" / "streams").glob("*.batches"))
    assert len(segments) > 2, "records have moved"
    for _ in range(2):
        reader = Reader(connection, "s", prefetch=1000, x_stream_offset="first")
        reader.wait(count, 40)
        assert reader.offsets == list(range(count))
        assert all(
            delivery.body == b"%d " % number + padding
            and delivery.properties.headers["number"] == number
            for number, delivery in enumerate(reader.deliveries)
        )
        small_broker.kill()
        small_broker.start()
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()
        connection = connect()
    connection.channel().queue_delete("s")
    wait_for(
        connection,
        lambda: not any((small_broker.data / "journal" / "streams").iterdir()),
        10,
        "end of the files",
    )
    connection.close()
