"""pika: consuming, acknowledging, prefetch, and how messages are shared out."""

import pika
import pytest

from inbox import Inbox, drain, wait_for


def fill(channel, queue, count):
    for number in range(count):
        channel.basic_publish("", queue, b"%d" % number)


def numbers(*values):
    return [b"%d" % value for value in values]


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def test_acknowledged_message_is_gone(connection, channel, queue):
    fill(channel, queue, 3)
    inbox = Inbox(channel, queue)
    inbox.wait(3)
    channel.basic_ack(inbox.tags[1])
    channel.close()
    again = drain(connection.channel(), queue, 2)
    assert [d.body for d in again] == numbers(0, 2)
    assert all(d.method.redelivered for d in again)


def test_multiple_acknowledgement_covers_all_before(connection, channel, queue):
    fill(channel, queue, 5)
    inbox = Inbox(channel, queue)
    inbox.wait(5)
    channel.basic_ack(inbox.tags[3], multiple=True)
    channel.close()
    assert [d.body for d in drain(connection.channel(), queue, 1)] == numbers(4)


def test_acknowledgement_of_tag_0_covers_everything(connection, channel, queue):
    fill(channel, queue, 5)
    Inbox(channel, queue).wait(5)
    channel.basic_ack(0, multiple=True)
    channel.close()
    assert ready(connection.channel(), queue) == 0


def test_delivery_tags_count_from_1_on_each_channel(connection, queue):
    for _ in range(2):
        channel = connection.channel()
        fill(channel, queue, 3)
        inbox = Inbox(channel, queue)
        inbox.wait(3)
        assert inbox.tags == [1, 2, 3]
        channel.basic_ack(0, multiple=True)
        channel.close()


def test_nack_with_requeue_delivers_again(channel, queue):
    fill(channel, queue, 1)
    inbox = Inbox(channel, queue)
    channel.basic_nack(inbox.wait(1)[0].method.delivery_tag)
    again = inbox.wait(2)[1]
    assert again.body == b"0" and again.method.redelivered


def test_requeued_messages_come_first_and_in_their_old_order(connection, channel, queue):
    channel.basic_qos(prefetch_count=4)
    inbox = Inbox(channel, queue)
    fill(channel, queue, 8)
    inbox.wait(4)
    channel.basic_cancel(inbox.tag)
    channel.basic_nack(inbox.tags[3], multiple=True)
    again = drain(connection.channel(), queue, 8)
    assert [d.body for d in again] == numbers(*range(8))
    assert [d.method.redelivered for d in again] == [True] * 4 + [False] * 4


def test_reject_without_requeue_drops(connection, channel, queue):
    fill(channel, queue, 2)
    inbox = Inbox(channel, queue)
    inbox.wait(2)
    channel.basic_reject(inbox.tags[0], requeue=False)
    channel.basic_reject(inbox.tags[1], requeue=True)
    assert inbox.wait(3)[2].body == b"1"
    channel.basic_ack(inbox.tags[2])
    assert ready(connection.channel(), queue) == 0


def test_recover_delivers_again_what_is_not_acknowledged(channel, queue):
    fill(channel, queue, 3)
    inbox = Inbox(channel, queue)
    inbox.wait(3)
    channel.basic_ack(inbox.tags[0])
    channel.basic_recover(requeue=True)
    inbox.wait(5)
    assert sorted(inbox.bodies[3:]) == numbers(1, 2)
    assert all(d.method.redelivered for d in inbox.deliveries[3:])


def test_prefetch_limits_what_is_unacknowledged(channel, queue):
    channel.basic_qos(prefetch_count=3)
    fill(channel, queue, 10)
    inbox = Inbox(channel, queue)
    inbox.wait(3)
    assert ready(channel, queue) == 7
    assert len(inbox.deliveries) == 3
    channel.basic_ack(inbox.tags[1], multiple=True)
    inbox.wait(5)
    assert ready(channel, queue) == 5
    assert inbox.bodies == numbers(*range(5))


def test_prefetch_counts_for_each_consumer(channel, queue):
    channel.basic_qos(prefetch_count=2)
    fill(channel, queue, 10)
    inboxes = [Inbox(channel, queue) for _ in range(3)]
    for inbox in inboxes:
        inbox.wait(2)
    assert ready(channel, queue) == 4


def test_global_prefetch_is_shared_by_the_consumers_of_a_channel(channel, queue):
    channel.basic_qos(prefetch_count=3, global_qos=True)
    fill(channel, queue, 10)
    inboxes = [Inbox(channel, queue) for _ in range(3)]
    wait_for(
        channel.connection, lambda: sum(len(i.deliveries) for i in inboxes) >= 3, 10, "delivery"
    )
    assert ready(channel, queue) == 7
    assert sum(len(inbox.deliveries) for inbox in inboxes) == 3


def test_automatic_acknowledgement_ignores_prefetch(channel, queue):
    channel.basic_qos(prefetch_count=1)
    fill(channel, queue, 100)
    Inbox(channel, queue, auto_ack=True).wait(100)
    assert ready(channel, queue) == 0


def test_generator_of_messages(channel, queue):
    fill(channel, queue, 5)
    seen = []
    for method, _, body in channel.consume(queue, inactivity_timeout=10):
        assert method is not None
        seen.append(body)
        channel.basic_ack(method.delivery_tag)
        if len(seen) == 5:
            break
    assert channel.cancel() == 0
    assert seen == numbers(*range(5))


def test_start_consuming_until_the_callback_stops_it(channel, queue):
    fill(channel, queue, 20)
    seen = []

    def receive(_channel, method, _properties, body):
        seen.append(body)
        channel.basic_ack(method.delivery_tag)
        if len(seen) == 20:
            channel.stop_consuming()

    channel.basic_consume(queue, receive)
    channel.start_consuming()
    assert seen == numbers(*range(20))


def test_cancelled_consumer_gets_nothing_more_and_may_still_acknowledge(channel, queue):
    fill(channel, queue, 1)
    inbox = Inbox(channel, queue)
    inbox.wait(1)
    channel.basic_cancel(inbox.tag)
    fill(channel, queue, 1)
    assert ready(channel, queue) == 1
    assert len(inbox.deliveries) == 1
    channel.basic_ack(inbox.tags[0])
    assert channel.queue_declare(queue, passive=True).method.consumer_count == 0


def test_consumers_take_turns(connect, queue):
    """Ten consumers on five connections, each with room for ten, share a hundred messages."""
    inboxes = []
    for _ in range(5):
        channel = connect().channel()
        channel.basic_qos(prefetch_count=10)
        inboxes += [Inbox(channel, queue) for _ in range(2)]
    publisher = connect().channel()
    fill(publisher, queue, 100)
    for inbox in inboxes:
        inbox.wait(10)
    assert [len(inbox.deliveries) for inbox in inboxes] == [10] * 10
    turns = sorted([int(body) for body in inbox.bodies] for inbox in inboxes)
    assert turns == [list(range(first, 100, 10)) for first in range(10)]


def test_consumers_that_never_acknowledge_share_evenly_too(connect, queue):
    inboxes = [Inbox(connect().channel(), queue, auto_ack=True) for _ in range(8)]
    fill(connect().channel(), queue, 4000)
    for inbox in inboxes:
        inbox.wait(400, 20)

    def counts():
        return [len(inbox.settle()) for inbox in inboxes]

    wait_for(inboxes[0].channel.connection, lambda: sum(counts()) == 4000, 20, "all messages")
    assert min(counts()) >= 400 and max(counts()) <= 600


def test_slow_consumer_leaves_the_work_to_the_others(connect, queue):
    slow, quick = connect().channel(), connect().channel()
    for channel in (slow, quick):
        channel.basic_qos(prefetch_count=1)
    stuck = Inbox(slow, queue)
    seen = []

    def work(channel, method, _properties, body):
        seen.append(body)
        channel.basic_ack(method.delivery_tag)

    quick.basic_consume(queue, work)
    fill(connect().channel(), queue, 50)
    stuck.wait(1)
    wait_for(quick.connection, lambda: len(seen) >= 49, 10, "49 messages")
    assert len(stuck.settle()) == 1


def test_consumer_of_higher_priority_is_served_first(channel, queue):
    channel.basic_qos(prefetch_count=5)
    low = Inbox(channel, queue)
    high = Inbox(channel, queue, arguments={"x-priority": 10})
    fill(channel, queue, 7)
    high.wait(5)
    low.wait(2)
    assert high.bodies == numbers(*range(5)) and low.bodies == numbers(5, 6)


def test_single_active_consumer_hands_over(channel, fresh):
    name = fresh("single")
    channel.queue_declare(name, arguments={"x-single-active-consumer": True})
    first, second = Inbox(channel, name, auto_ack=True), Inbox(channel, name, auto_ack=True)
    fill(channel, name, 5)
    first.wait(5)
    assert second.deliveries == []
    channel.basic_cancel(first.tag)
    fill(channel, name, 3)
    second.wait(3)


def test_queue_deletion_cancels_its_consumers(connection, channel, queue):
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    inbox = Inbox(channel, queue)
    connection.channel().queue_delete(queue)
    wait_for(connection, lambda: cancelled, 10, "cancel notification")
    assert cancelled == [inbox.tag]
    assert channel.is_open
    channel.queue_declare(queue)


def test_server_names_consumers_uniquely(channel, queue):
    tags = set()
    for _ in range(3):
        tag = channel.basic_consume(queue, lambda *_: None, consumer_tag="")
        tags.add(tag)
    assert len(tags) == 3


@pytest.mark.parametrize("count", [1, 300])
def test_closing_the_connection_returns_its_messages(connect, channel, queue, count):
    fill(channel, queue, count)
    other = connect()
    inbox = Inbox(other.channel(), queue)
    inbox.wait(count)
    other.close()
    again = drain(channel, queue, count)
    assert [d.body for d in again] == numbers(*range(count))
    assert all(d.method.redelivered for d in again)


def test_transaction_acknowledges_at_commit(connection, queue):
    channel = connection.channel()
    fill(channel, queue, 2)
    inbox = Inbox(channel, queue)
    inbox.wait(2)
    channel.tx_select()
    channel.basic_ack(inbox.tags[0])
    channel.tx_commit()
    channel.basic_ack(inbox.tags[1])
    channel.tx_rollback()
    channel.close()
    assert [d.body for d in drain(connection.channel(), queue, 1)] == numbers(1)


def test_properties_of_a_redelivered_message_are_unchanged(channel, queue):
    sent = pika.BasicProperties(headers={"a": 1}, message_id="same")
    channel.basic_publish("", queue, b"body", sent)
    inbox = Inbox(channel, queue)
    channel.basic_nack(inbox.wait(1)[0].method.delivery_tag)
    assert inbox.wait(2)[1].properties == sent
