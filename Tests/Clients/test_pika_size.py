"""pika: bodies of awkward sizes, and many of everything."""

import hashlib

import pytest

from inbox import Inbox, drain, wait_for

FRAME_OVERHEAD = 8
KIBI, MEBI = 1 << 10, 1 << 20


def body_of(size):
    """Bytes that differ everywhere, so that a lost or doubled frame shows."""
    return hashlib.shake_128(b"%d" % size).digest(size)


def echo(channel, size):
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    channel.basic_publish("", queue, body_of(size))
    received = drain(channel, queue, 1, 30)[0].body
    assert len(received) == size
    assert received == body_of(size)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("difference", [-1, 0, 1])
@pytest.mark.parametrize("frame_max", [4096, 131072])
def test_body_about_a_whole_number_of_frames(connect, frame_max, frames, difference):
    connection = connect(frame_max=frame_max)
    echo(connection.channel(), frames * (frame_max - FRAME_OVERHEAD) + difference)


@pytest.mark.parametrize("size", [0, 1, 7, 65535, 65536, 5 * MEBI, 50 * MEBI])
def test_body_of_size(channel, size):
    echo(channel, size)


def test_small_messages_pass_between_large_ones(channel, queue):
    sizes = [0, MEBI, 1, 300 * KIBI, 17, 2 * MEBI, 0, 131064]
    for size in sizes:
        channel.basic_publish("", queue, body_of(size))
    received = [delivery.body for delivery in drain(channel, queue, len(sizes), 20)]
    assert received == [body_of(size) for size in sizes]


def test_large_message_passes_between_clients_of_different_frame_sizes(connect, queue):
    small, large = connect(frame_max=4096).channel(), connect(frame_max=131072).channel()
    for sender, receiver in ((small, large), (large, small)):
        sender.basic_publish("", queue, body_of(MEBI))
        assert drain(receiver, queue, 1, 20)[0].body == body_of(MEBI)


def test_a_thousand_queues(connect):
    connection = connect()
    channel = connection.channel()
    queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(1000)]
    for queue in queues:
        channel.queue_bind(queue, "amq.fanout")
    received = {}

    def receive(_channel, method, _properties, body):
        received[method.consumer_tag] = body

    for queue in queues:
        channel.basic_consume(queue, receive, auto_ack=True, consumer_tag=queue)
    channel.basic_publish("amq.fanout", "", b"to everybody")
    wait_for(connection, lambda: len(received) == 1000, 20, "a message for each queue")
    assert set(received) == set(queues)
    for queue in queues[:500]:
        channel.queue_delete(queue)


def test_two_hundred_channels(connect, queue):
    connection = connect()
    channels = [connection.channel() for _ in range(200)]
    assert len({channel.channel_number for channel in channels}) == 200
    inboxes = [Inbox(channel, queue, auto_ack=True) for channel in channels]
    for channel in channels:
        channel.basic_publish("", queue, b"%d" % channel.channel_number)
    wait_for(connection, lambda: sum(len(i.deliveries) for i in inboxes) == 200, 20, "200 messages")
    bodies = sorted(int(body) for inbox in inboxes for body in inbox.bodies)
    assert bodies == sorted(channel.channel_number for channel in channels)
    for channel in channels:
        channel.close()


def test_hundred_connections(connect, queue):
    connections = [connect() for _ in range(100)]
    inboxes = [Inbox(connection.channel(), queue) for connection in connections]
    publisher = connections[0].channel()
    for number in range(100):
        publisher.basic_publish("", queue, b"%d" % number)
    connections[0].process_data_events()
    for inbox in inboxes:
        inbox.wait(1)
    assert sorted(int(i.bodies[0]) for i in inboxes) == list(range(100))


def test_hundred_consumers_on_one_channel(channel, queue):
    inboxes = [Inbox(channel, queue, auto_ack=True) for _ in range(100)]
    for number in range(1000):
        channel.basic_publish("", queue, b"%d" % number)
    for inbox in inboxes:
        inbox.wait(10)
    assert sorted(int(body) for inbox in inboxes for body in inbox.bodies) == list(range(1000))


def test_long_backlog_comes_out_whole(channel, queue):
    for number in range(20000):
        channel.basic_publish("", queue, b"%d" % number)
    inbox = Inbox(channel, queue, auto_ack=True)
    inbox.wait(20000, 40)
    assert inbox.bodies == [b"%d" % number for number in range(20000)]
