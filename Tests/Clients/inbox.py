"""What a consumer of a pika blocking channel has received."""

import time
from typing import NamedTuple

from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties


class Delivery(NamedTuple):
    method: Basic.Deliver
    properties: BasicProperties
    body: bytes


class Inbox:
    """Consumes a queue and keeps the deliveries in the order in which they came."""

    def __init__(self, channel: BlockingChannel, queue: str, **options):
        self.channel = channel
        self.deliveries: list[Delivery] = []
        self.tag = channel.basic_consume(queue, self._receive, **options)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    @property
    def tags(self) -> list[int]:
        return [delivery.method.delivery_tag for delivery in self.deliveries]

    def wait(self, count: int, seconds: float = 10) -> list[Delivery]:
        """The deliveries, once there are at least `count` of them."""
        wait_for(
            self.channel.connection,
            lambda: len(self.deliveries) >= count,
            seconds,
            f"{count} deliveries",
        )
        return self.deliveries

    def settle(self) -> list[Delivery]:
        """The deliveries after a round trip: whatever the broker had sent before it has arrived."""
        self.channel.basic_qos(prefetch_count=0)
        self.channel.connection.process_data_events()
        return self.deliveries

    def _receive(self, _channel, method, properties, body) -> None:
        self.deliveries.append(Delivery(method, properties, body))


def wait_for(connection, condition, seconds: float, what: str) -> None:
    """Serves the pika connection until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        remaining = deadline - time.monotonic()
        assert remaining > 0, f"no {what} within {seconds} s"
        connection.process_data_events(time_limit=min(remaining, 0.2))


def drain(channel: BlockingChannel, queue: str, count: int, seconds: float = 10) -> list[Delivery]:
    """Takes exactly `count` messages out of the queue and finds it empty afterwards."""
    inbox = Inbox(channel, queue, auto_ack=True)
    inbox.wait(count, seconds)
    inbox.settle()
    channel.basic_cancel(inbox.tag)
    assert len(inbox.deliveries) == count, f"{len(inbox.deliveries)} messages instead of {count}"
    return inbox.deliveries
