"""A consumer of the crash test: remembers what it got, acknowledged, and knows to be safe."""

from dataclasses import dataclass, field
from typing import NamedTuple

import pika

from client import Stage
from topology import FENCE, PERSISTENT, Identity, body_of, identity_of, route

PREFETCH = 60
# After so many acknowledgements the consumer publishes a message of its own, to be confirmed: what
# it acknowledged before on that channel is then as durable as the message.
ACKNOWLEDGEMENTS_PER_FENCE = 100


class Delivery(NamedTuple):
    round: int
    identity: Identity
    redelivered: bool


@dataclass
class ConsumerRecord:
    source: str
    queue: str
    deliveries: list[Delivery] = field(default_factory=list)
    # Acknowledged, but whether the broker saw it is not known.
    acknowledged: set[Identity] = field(default_factory=set)
    # The round in which the acknowledgement was certainly made durable.
    settled: dict[Identity, int] = field(default_factory=dict)
    # The consumer's own messages, as of a publisher.
    attempted: int = 0
    confirmed: list[int] = field(default_factory=list)


class Consumer:
    """Consumes from one queue, and acknowledges `batch` messages at a time."""

    def __init__(self, url: str, queue: str, name: str, batch: int):
        self._url, self._queue, self._batch = url, queue, batch
        self._source = f"{FENCE}:{queue}#{name}"

    def __call__(self, stage: Stage) -> ConsumerRecord:
        record = ConsumerRecord(self._source, self._queue)
        while not stage.stop.is_set():
            before = stage.round
            try:
                connection = pika.BlockingConnection(pika.URLParameters(self._url))
                # Which broker it is that answered is certain only if no round began meanwhile.
                if stage.round == before:
                    self._consume(connection.channel(), before, record, stage)
                connection.close()
            except (pika.exceptions.AMQPError, OSError):
                stage.pause()
        return record

    def _consume(self, channel, round_number: int, record: ConsumerRecord, stage: Stage) -> None:
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.confirm_delivery()
        held: list[Identity] = []
        unsettled: list[Identity] = []
        for method, _, body in channel.consume(self._queue, inactivity_timeout=0.05):
            if stage.stop.is_set():
                return
            if method is None:
                continue
            identity = identity_of(body)
            record.deliveries.append(Delivery(round_number, identity, method.redelivered))
            held.append(identity)
            if len(held) < self._batch:
                continue
            # Noted first: an acknowledgement that fails may have arrived all the same.
            record.acknowledged.update(held)
            channel.basic_ack(method.delivery_tag, multiple=self._batch > 1)
            unsettled += held
            held = []
            if len(unsettled) >= ACKNOWLEDGEMENTS_PER_FENCE:
                self._fence(channel, record)
                record.settled.update(dict.fromkeys(unsettled, round_number))
                unsettled = []

    def _fence(self, channel, record: ConsumerRecord) -> None:
        identity = Identity(self._source, record.attempted)
        record.attempted += 1
        channel.basic_publish(*route(identity), body_of(identity), PERSISTENT, mandatory=True)
        record.confirmed.append(identity.number)
