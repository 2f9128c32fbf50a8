"""What the crash test declares, where each of its messages must go, and what is in it."""

from typing import NamedTuple

import pika
from pika.adapters.blocking_connection import BlockingChannel

FANOUT, DIRECT = "crash-fanout", "crash-direct"
# Nobody consumes from the hoard before the end: it keeps everything, through every crash.
HOARD, WORK, BATCH = "crash-hoard", "crash-work", "crash-batch"
QUEUES = (HOARD, WORK, BATCH)
PROBE = "probe"
FENCE = "fence"


class Identity(NamedTuple):
    """A message: who published it, and its number among the messages of that publisher."""

    source: str
    number: int


def declare(channel: BlockingChannel, passive: bool = False) -> None:
    """Declares the queues and exchanges, or with `passive` raises unless they are there."""
    channel.exchange_declare(FANOUT, "fanout", durable=True, passive=passive)
    channel.exchange_declare(DIRECT, "direct", durable=True, passive=passive)
    for queue in QUEUES:
        channel.queue_declare(queue, durable=True, passive=passive)
        if not passive:
            channel.queue_bind(queue, FANOUT, "")
            channel.queue_bind(queue, DIRECT, queue)


def route(identity: Identity) -> tuple[str, str]:
    """The exchange and the key that a message is published with."""
    kind, _, name = identity.source.partition(":")
    if kind == FENCE:
        # A consumer's fence goes to the queue that it consumes from.
        return DIRECT, name.partition("#")[0]
    if identity.number % 2 == 0:
        return FANOUT, ""
    return DIRECT, QUEUES[identity.number // 2 % len(QUEUES)]


def queues_of(identity: Identity) -> tuple[str, ...]:
    """The queues that a message reaches."""
    exchange, key = route(identity)
    return QUEUES if exchange == FANOUT else (key,)


def body_of(identity: Identity) -> bytes:
    """Mostly small, now and then some pages or several frames; different in every message."""
    head = f"{identity.source}/{identity.number}/".encode()
    length = (
        150_000 if identity.number % 251 == 250 else 6_000 if identity.number % 16 == 15 else 100
    )
    return (head * (length // len(head) + 1))[:length]


def identity_of(body: bytes) -> Identity:
    """Whose body this is; raises when a single byte is wrong."""
    source, number, _ = body.split(b"/", 2)
    identity = Identity(source.decode(), int(number))
    assert body == body_of(identity), f"the body of {identity} is damaged"
    return identity


PERSISTENT = pika.BasicProperties(delivery_mode=2)
