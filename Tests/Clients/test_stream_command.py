"""`martlet stream`: streams and the groups of their consumers are listed, moved and deleted."""

import json
import math
import time
from datetime import datetime, timezone

import pika
import pytest

from inbox import wait_for
from test_commands import run
from test_pika_stream import Reader, declare, publish, stream  # noqa: F401
from watched_broker import eventually


def lines(url, *words):
    out, _ = run("stream", *words, "--json", url=url)
    return [json.loads(line) for line in out.splitlines()]


def groups(url, stream, *words):
    return {group["name"]: group for group in lines(url, "groups", stream, *words)}


def committed(url, stream, group):
    found = groups(url, stream, group)[group]["partitions"]
    return [partition["committed_offset"] for partition in found]


def read(connect, stream, group, count):
    """A member of a group acknowledges so many records, and goes."""
    connection = connect()
    reader = Reader(connection, stream, prefetch=100, x_stream_group=group, x_stream_offset="first")
    reader.acknowledges = False
    reader.wait(count)
    reader.channel.basic_ack(reader.tags[count - 1], multiple=True)
    connection.close()


# Lists


def test_streams_are_listed(url, connect, channel, fresh, stream):
    other, queue = fresh("other"), fresh("queue")
    declare(channel, other, x_stream_partitions=3)
    channel.queue_declare(queue)
    read(connect, stream, "g", 10)
    reader = Reader(channel.connection, stream)
    rows = {row["name"]: row for row in lines(url, "list")}
    assert rows[stream] == {
        "name": stream, "partitions": 1, "records": 100, "segment_bytes": 0, "groups": 1,
        "consumers": 1,
    }
    assert rows[other]["partitions"] == 3 and rows[other]["records"] == 0
    assert queue not in rows
    reader.channel.close()
    out, said = run("stream", "list", url=url)
    table = [line.split() for line in out.decode().splitlines()]
    assert table[0] == ["stream", "partitions", "records", "segment", "bytes", "groups", "consumers"]
    assert [stream, "1", "100", "0", "1", "0"] in table and [other, "3", "0", "0", "0", "0"] in table
    assert said == f"{len(table) - 1} streams\n"


def test_a_stream_is_described(url, channel, fresh):
    exchange, stream = fresh("exchange"), fresh("stream")
    channel.exchange_declare(exchange, "fanout")
    declare(channel, stream, x_stream_partitions=4, x_max_age="7D")
    channel.queue_bind(stream, exchange)
    before = int(time.time() * 1000)
    publish(channel.connection, stream, range(40), exchange, lambda number: f"key-{number}")
    (info,) = lines(url, "info", stream)
    assert info["name"] == stream and info["records"] == 40
    assert info["arguments"] == {
        "x-queue-type": "stream", "x-stream-partitions": 4, "x-max-age": "7D",
    }
    found = info["partitions"]
    assert [partition["partition"] for partition in found] == [0, 1, 2, 3]
    assert sum(partition["records"] for partition in found) == 40
    for partition in found:
        assert partition["records"] == partition["records_in_log"] == partition["next_offset"] > 0
        assert before - 100 <= partition["oldest_before"] <= time.time() * 1000 + 100
    out, _ = run("stream", "info", stream, url=url)
    first, second, titles, *rows = out.decode().splitlines()
    assert first == f'stream "{stream}": 40 records, 0 bytes in segments, 0 groups, 0 consumers'
    assert second.startswith("declared with ") and 'x-max-age="7D"' in second
    assert titles.split()[:3] == ["partition", "first", "next"] and len(rows) == 4
    for row, partition in zip(rows, found):
        words = row.split()
        assert words[:4] == [str(partition[name]) for name in (
            "partition", "first_offset", "next_offset", "records")]
        moment = datetime.strptime(words[-1], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        assert round(moment.timestamp() * 1000) == partition["oldest_before"]


def test_groups_are_listed_with_their_lag(url, connect, channel, stream):
    assert groups(url, stream) == {}
    read(connect, stream, "idle", 30)
    reader = Reader(channel.connection, stream, x_stream_group="busy", x_stream_offset=90)
    reader.wait(10)
    eventually(lambda: groups(url, stream)["busy"]["lag"] == 0, "acknowledgement of all")
    publish(connect(), stream, range(100, 105))
    found = groups(url, stream)
    assert list(found) == ["busy", "idle"]
    assert found["idle"] == {
        "name": "idle", "members": 0, "lag": 75,
        "partitions": [{"partition": 0, "committed_offset": 30, "end_offset": 105, "lag": 75}],
    }
    assert found["busy"]["members"] == 1
    (place,) = found["busy"]["partitions"]
    assert place["consumer"] == reader.tag and place["user"] == "guest" and place["connection"]
    out, said = run("stream", "groups", stream, url=url)
    text = out.decode().splitlines()
    assert text[0].startswith('group "busy": 1 member, lag ')
    assert reader.tag in text[2] and text[3] == ""
    assert text[4] == 'group "idle": 0 members, lag 75'
    assert text[5].split() == [
        "partition", "committed", "end", "lag", "consumer", "connection", "user",
    ]
    assert text[6].split() == ["0", "30", "105", "75", "-", "-", "-"] and len(text) == 7
    assert said == "2 groups\n"
    assert list(groups(url, stream, "idle")) == ["idle"]


def test_a_group_of_more_partitions_than_a_page_is_listed_whole(url, connect, channel, fresh):
    stream = fresh("stream")
    declare(channel, stream, x_stream_partitions=600)
    for name in "abc":
        Reader(channel.connection, stream, x_stream_group=name).channel.close()
    found = groups(url, stream)
    assert list(found) == ["a", "b", "c"]
    for group in found.values():
        assert [place["partition"] for place in group["partitions"]] == list(range(600))


# Reset


@pytest.mark.parametrize(
    "place, first",
    [
        ("first", 0), ("last", 99), ("next", 100), ("30", 30), ("-7", 93), ("-1000", 0),
        ("1h", 0), ("2020-01-01T00:00:00Z", 0), ("2100-01-01T00:00:00Z", 100),
    ],
)
def test_a_group_goes_on_where_it_is_told(url, connect, stream, place, first):
    read(connect, stream, "g", 60)
    out, said = run("stream", "reset", stream, "g", "--to", place, url=url)
    assert [line.split() for line in out.decode().splitlines()] == [
        ["partition", "from", "to"], ["0", "60", str(first)],
    ]
    assert said == f'reset group "g" of stream "{stream}"\n'
    publish(connect(), stream, [100])
    reader = Reader(connect(), stream, x_stream_group="g")
    reader.wait(101 - first)
    # The group had all but the last one.
    assert reader.offsets == list(range(first, 101))
    assert [delivery.method.redelivered for delivery in reader.deliveries] == [
        offset < 100 for offset in reader.offsets
    ]


def test_a_moment_is_a_place(url, connect, stream):
    """What came before the moment is passed over."""
    read(connect, stream, "g", 100)
    moment = math.ceil(time.time() + 0.2)
    eventually(lambda: time.time() >= moment, "the moment")
    publish(connect(), stream, range(100, 110))
    word = datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    run("stream", "reset", stream, "g", "--to", "first", url=url)
    (answer,) = lines(url, "reset", stream, "g", "--to", word)
    assert answer == {"partitions": [{"partition": 0, "from": 0, "to": 100}]}


def test_an_offset_behind_the_end_is_waited_for(url, connect, stream):
    read(connect, stream, "g", 10)
    run("stream", "reset", stream, "g", "--to", "105", url=url)
    reader = Reader(connect(), stream, x_stream_group="g")
    publish(connect(), stream, range(100, 110))
    reader.wait(5)
    assert reader.offsets == list(range(105, 110))


def test_one_partition_is_reset(url, connect, channel, fresh):
    exchange, stream = fresh("exchange"), fresh("stream")
    channel.exchange_declare(exchange, "fanout")
    declare(channel, stream, x_stream_partitions=3)
    channel.queue_bind(stream, exchange)
    publish(connect(), stream, range(60), exchange, lambda number: f"key-{number}")
    read(connect, stream, "g", 60)
    ends = committed(url, stream, "g")
    assert sum(ends) == 60 and 0 not in ends
    run("stream", "reset", stream, "g", "--to", "first", "--partition", "1", url=url)
    assert committed(url, stream, "g") == [ends[0], 0, ends[2]]
    (answer,) = lines(url, "reset", stream, "g", "--to", "-1")
    assert [(move["from"], move["to"]) for move in answer["partitions"]] == [
        (ends[0], ends[0] - 1), (0, ends[1] - 1), (ends[2], ends[2] - 1),
    ]
    _, said = run("stream", "reset", stream, "g", "--to", "0", "--partition", "3", url=url, expect=1)
    assert f"stream '{stream}' has partitions 0 to 2, not 3" in said


def test_what_subscribe_prints_in_a_group_is_acknowledged(url, stream):
    words = ["subscribe", stream, "-a", "x-stream-group=g"]
    out, _ = run(*words, "-a", "x-stream-offset=first", "--count", "10", url=url)
    assert out.split() == [b"%d" % number for number in range(10)]
    assert committed(url, stream, "g") == [10]
    out, _ = run(*words, "--count", "3", "--prefetch", "1", url=url)
    assert out.split() == [b"10", b"11", b"12"]
    run("stream", "reset", stream, "g", "--to", "-3", url=url)
    out, _ = run(*words, "--timeout", "300ms", url=url)
    assert out.split() == [b"97", b"98", b"99"]
    assert committed(url, stream, "g") == [100]


# Deletion


def test_a_deleted_group_begins_anew(url, connect, stream):
    for name in ("g", "h"):
        read(connect, stream, name, 60)
    _, said = run("stream", "delete-group", stream, "g", url=url)
    assert said == f'deleted group "g" of stream "{stream}"\n'
    assert list(groups(url, stream)) == ["h"]
    reader = Reader(connect(), stream, x_stream_group="g", x_stream_offset="first")
    reader.wait(100)
    assert reader.offsets == list(range(100))
    assert not any(delivery.method.redelivered for delivery in reader.deliveries)


# Partitions


def test_partitions_are_added_while_others_read_and_write(url, connect, channel, fresh):
    exchange, stream = fresh("exchange"), fresh("stream")
    channel.exchange_declare(exchange, "fanout")
    declare(channel, stream, x_stream_partitions=2)
    channel.queue_bind(stream, exchange)
    alone = Reader(connect(), stream, x_stream_offset="first")
    members = [Reader(connect(), stream, x_stream_group="g") for _ in range(2)]
    publish(connect(), stream, range(100), exchange, lambda number: f"key-{number}")
    _, said = run("stream", "add-partitions", stream, "4", url=url)
    assert said == f'stream "{stream}" has 6 partitions\n'
    publish(connect(), stream, range(100, 300), exchange, lambda number: f"key-{number}")
    alone.wait(300)
    assert sorted(alone.numbers) == list(range(300))
    wait_for(
        members[0].channel.connection,
        lambda: members[1].quiet(0.05) and sum(len(m.deliveries) for m in members) >= 300,
        20,
        "300 deliveries",
    )
    assert sorted(members[0].numbers + members[1].numbers) == list(range(300))
    shares = [
        {delivery.properties.headers["x-stream-partition"] for delivery in member.deliveries}
        for member in members
    ]
    assert sorted(shares[0] | shares[1]) == list(range(6)) and shares[0].isdisjoint(shares[1])
    for count in (2, 6):
        declare(channel, stream, x_stream_partitions=count)
    (answer,) = lines(url, "add-partitions", stream, "1")
    assert answer == {"name": stream, "partitions": 7}
    _, said = run("stream", "add-partitions", stream, "1018", url=url, expect=1)
    assert f"stream '{stream}' has 7 partitions, and may have 1024" in said
    for number in ("0", "1025", "x"):
        _, said = run("stream", "add-partitions", stream, number, url=url, expect=2)
        assert f'N: "{number}" is not a whole number from 1 to 1024' in said


# Crashes


def test_what_was_changed_survives_crashes_and_restarts(own_broker):
    def connect():
        return pika.BlockingConnection(pika.URLParameters(own_broker.url))

    connection = connect()
    declare(connection.channel(), "s")
    publish(connection, "s", range(100))
    for name in ("moved", "gone", "left"):
        read(connect, "s", name, 50)
    run("stream", "reset", "s", "moved", "--to", "20", url=own_broker.url)
    run("stream", "delete-group", "s", "gone", url=own_broker.url)
    run("stream", "add-partitions", "s", "2", url=own_broker.url)
    connection.close()
    for end in (own_broker.kill, own_broker.stop, own_broker.stop):
        end()
        own_broker.start()
        found = groups(own_broker.url, "s")
        assert {name: group["lag"] for name, group in found.items()} == {"left": 50, "moved": 80}
        assert [len(group["partitions"]) for group in found.values()] == [3, 3]
    with connect() as connection:
        reader = Reader(connection, "s", x_stream_group="moved")
        reader.wait(80)
        assert reader.offsets == list(range(20, 100))


# Mistakes


def test_a_group_with_members_is_left_alone(url, connect, channel, stream):
    readers = [Reader(connect(), stream, x_stream_group="g") for _ in range(2)]
    for words in (["reset", stream, "g", "--to", "first"], ["delete-group", stream, "g"]):
        _, said = run("stream", *words, url=url, expect=1)
        assert f"group 'g' of stream '{stream}' has 2 members: end their consumers first" in said
    assert committed(url, stream, "g") == [100]
    for reader in readers:
        reader.channel.close()
    run("stream", "delete-group", stream, "g", url=url)


def test_what_is_not_there_is_told(url, connect, channel, fresh, stream, queue):
    for words in (["info"], ["groups"], ["reset", "g", "--to", "first"], ["delete-group", "g"]):
        for name, reason in (
            ("none", "no stream 'none' in vhost '/'"),
            (queue, f"'{queue}' in vhost '/' is a queue, and no stream"),
        ):
            _, said = run("stream", words[0], name, *words[1:], url=url, expect=1)
            assert f"the broker refused: {reason}" in said
    for words in (["groups", stream, "g"], ["reset", stream, "g", "--to", "first"],
                  ["delete-group", stream, "g"]):
        _, said = run("stream", *words, url=url, expect=1)
        assert f"the broker refused: stream '{stream}' has no group 'g'" in said


@pytest.mark.parametrize("place", ["frist", "", "+5", "90w", "2026-11-28", "9223372036854775808"])
def test_a_place_that_is_none_is_a_mistake_of_usage(url, place):
    _, said = run("stream", "reset", "s", "g", "--to", place, url=url, expect=2)
    assert f'--to: "{place}" is not a place; write first, last, next' in said


def test_reset_says_where(url):
    _, said = run("stream", "reset", "s", "g", url=url, expect=2)
    assert "--to PLACE is missing" in said
    _, said = run("stream", "reset", "s", "g", "--to", "1", "--partition", "-1", url=url, expect=2)
    assert "--partition" in said
