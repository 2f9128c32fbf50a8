"""Transactions as pika uses them."""

import pika
import pytest

from inbox import drain


@pytest.fixture
def queues(channel):
    return [channel.queue_declare("", exclusive=True).method.queue for _ in range(3)]


def counts(channel, queues):
    return [channel.queue_declare(q, passive=True).method.message_count for q in queues]


@pytest.mark.parametrize("size", [10, 60_000, 3_000_000])
def test_messages_of_any_size_reach_all_queues_at_the_commit(connection, channel, queues, size):
    other = connection.channel()
    bodies = [bytes([65 + n]) * size for n in range(3)]
    channel.tx_select()
    for body in bodies:
        for queue in queues:
            # Small ones may be many; of large ones there is only one in a transaction.
            if size < 1_000_000 or (body, queue) == (bodies[0], queues[0]):
                channel.basic_publish("", queue, body)
    assert counts(other, queues) == [0, 0, 0]
    channel.tx_commit()
    expected = bodies if size < 1_000_000 else bodies[:1]
    assert [d.body for d in drain(other, queues[0], len(expected))] == expected
    assert counts(other, queues[1:]) == ([3, 3] if size < 1_000_000 else [0, 0])


def test_moving_messages_between_queues_is_one(connection, channel, queues):
    source, left, right = queues
    other = connection.channel()
    for number in range(10):
        other.basic_publish("", source, b"%d" % number)
    channel.tx_select()
    for _ in range(10):
        method, _, body = channel.basic_get(source)
        channel.basic_publish("", left, body)
        channel.basic_publish("", right, body)
        channel.basic_ack(method.delivery_tag)
    assert counts(other, [left, right]) == [0, 0]
    channel.tx_rollback()
    channel.tx_commit()
    assert counts(other, queues) == [0, 0, 0], "unacknowledged, and nothing was published"
    channel.basic_ack(0, multiple=True)
    channel.basic_publish("", left, b"once")
    channel.tx_commit()
    channel.close()
    assert counts(other, queues) == [0, 1, 0]


def test_what_is_unroutable_comes_back_before_the_commit_is_answered(channel):
    returned = []
    channel.add_on_return_callback(lambda *arguments: returned.append(arguments[-1]))
    channel.tx_select()
    channel.basic_publish("", "nowhere", b"back", mandatory=True)
    channel.connection.process_data_events(0.1)
    assert returned == []
    channel.tx_commit()
    channel.connection.process_data_events(0)
    assert returned == [b"back"]


@pytest.mark.parametrize(
    "mistake, text",
    [
        (lambda channel: channel.tx_commit(), "channel is not transactional"),
        (lambda channel: channel.tx_rollback(), "channel is not transactional"),
        (
            lambda channel: (channel.confirm_delivery(), channel.tx_select()),
            "cannot switch from confirm to tx mode",
        ),
        (
            lambda channel: (channel.tx_select(), channel.confirm_delivery()),
            "cannot switch from tx to confirm mode",
        ),
    ],
)
def test_modes_exclude_each_other(channel, mistake, text):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        mistake(channel)
    assert raised.value.reply_code == 406
    assert raised.value.reply_text == f"PRECONDITION_FAILED - {text}"


def test_a_commit_of_as_many_as_there_may_be(connection, channel, queues):
    channel.tx_select()
    for number in range(8192):
        channel.basic_publish("", queues[0], b"%d" % number)
    channel.tx_commit()
    assert counts(connection.channel(), queues) == [8192, 0, 0]
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        for number in range(8193):
            channel.basic_publish("", queues[1], b"%d" % number)
        channel.tx_commit()
    assert "transactionOperationsMax (8192)" in raised.value.reply_text
    assert counts(connection.channel(), queues) == [8192, 0, 0]


def test_a_full_queue_refuses_the_whole_commit(connection, channel, queues):
    arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
    full = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    channel.tx_select()
    channel.basic_publish("", queues[0], b"1")
    for _ in range(3):
        channel.basic_publish("", full, b"2")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        channel.tx_commit()
    assert raised.value.reply_code == 406
    assert counts(connection.channel(), [queues[0], full]) == [0, 0]
