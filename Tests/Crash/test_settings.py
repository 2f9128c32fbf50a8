"""Queues with limits, priorities, and without repetitions keep to them over crashes."""

import pika

from deadline import limit
from inbox import drain
from lives import PERSISTENT, lives  # noqa: F401

LIMITED, OVER, STRICT, ORDERED, UNIQUE = "limited", "limited-over", "strict", "ordered", "unique"
ROOM = 100
BODY = b"x" * 1500
PRIORITIES = 4


def declare(channel) -> None:
    def queue(name, **arguments):
        arguments = {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}
        channel.queue_declare(name, durable=True, arguments=arguments)

    queue(OVER)
    queue(LIMITED, max_length=ROOM, dead_letter_exchange="", dead_letter_routing_key=OVER)
    queue(STRICT, max_length=ROOM, overflow="reject-publish")
    queue(ORDERED, max_priority=PRIORITIES)
    queue(UNIQUE, message_deduplication=True, cache_size=100_000)


def body_of(number: int) -> bytes:
    return b"%d:" % number + BODY


class Publisher:
    def __init__(self, chance):
        self.chance = chance
        # For each queue the numbers that were sent, and those that were certainly stored.
        self.sent = {queue: 0 for queue in (LIMITED, STRICT, ORDERED, UNIQUE)}
        self.confirmed = {queue: set() for queue in self.sent}
        self.priorities: list[int] = []
        self.refused = 0

    def work(self, channel) -> None:
        while True:
            self.publish(channel, LIMITED)
            try:
                self.publish(channel, STRICT)
            except pika.exceptions.NackError:
                self.refused += 1
            self.priorities.append(self.chance.randrange(PRIORITIES + 1))
            self.publish(channel, ORDERED, priority=self.priorities[-1])
            self.publish_unique(channel)

    def publish(self, channel, queue: str, **properties) -> None:
        number = self.sent[queue]
        self.sent[queue] += 1
        properties = pika.BasicProperties(delivery_mode=2, **properties)
        channel.basic_publish("", queue, body_of(number), properties, mandatory=True)
        self.confirmed[queue].add(number)

    def publish_unique(self, channel) -> None:
        """What was not confirmed is sent again, as is now and then what was."""
        confirmed = len(self.confirmed[UNIQUE])
        again = self.chance.randrange(max(0, confirmed - 5), confirmed + 1)
        for number in (again, confirmed):
            headers = {"x-deduplication-header": number}
            properties = pika.BasicProperties(delivery_mode=2, headers=headers)
            # Not mandatory: what is repeated reaches no queue.
            channel.basic_publish("", UNIQUE, body_of(number), properties)
        self.confirmed[UNIQUE].add(confirmed)


def take(lives, channel, queue: str) -> list[int]:  # noqa: F811
    letters = drain(channel, queue, lives.count(channel, queue), 30)
    assert all(letter.body.partition(b":")[2] == BODY for letter in letters)
    return [int(letter.body.partition(b":")[0]) for letter in letters]


def ranks(publisher: Publisher, numbers: list[int]) -> list[tuple[int, int]]:
    return [(-publisher.priorities[number], number) for number in numbers]


def test_settings_hold_over_crashes(lives):  # noqa: F811
    publisher = Publisher(lives.chance)
    with limit(90):
        declare(lives.open())
        lives.play(6, publisher.work)
        channel = lives.open()
        found = {queue: take(lives, channel, queue) for queue in (LIMITED, OVER, STRICT, ORDERED, UNIQUE)}
        # The queue that was emptied has room again.
        channel.basic_publish("", STRICT, b"more", PERSISTENT, mandatory=True)
    confirmed = publisher.confirmed
    print(", ".join(f"{queue} {len(numbers)}" for queue, numbers in found.items()))

    both = found[OVER] + found[LIMITED]
    assert both == sorted(set(both)), "each is in one of both, and they left in their order"
    assert confirmed[LIMITED] <= set(both)
    assert len(found[LIMITED]) == ROOM

    assert found[STRICT] == sorted(set(found[STRICT]))
    assert confirmed[STRICT] <= set(found[STRICT]) and len(found[STRICT]) == ROOM
    assert publisher.refused > 0

    assert ranks(publisher, found[ORDERED]) == sorted(set(ranks(publisher, found[ORDERED])))
    assert confirmed[ORDERED] <= set(found[ORDERED])

    assert sorted(found[UNIQUE]) == sorted(set(found[UNIQUE])), "repeated"
    assert confirmed[UNIQUE] <= set(found[UNIQUE])
    assert len(found[OVER]) > ROOM, "too little happened to prove anything"
