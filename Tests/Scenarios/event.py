"""One thing that arrived: a method with its content, the end of a socket, or a broken rule."""

from dataclasses import dataclass, field


@dataclass
class Event:
    """`kind` is method, confirm (with the tags it newly settles), closed, version (a protocol
    header, in `text`), heartbeat or anomaly (a broken rule, in `text`)."""

    connection: str
    channel: int
    kind: str
    name: str = ""
    arguments: dict = field(default_factory=dict)
    properties: dict = field(default_factory=dict)
    body: bytes | None = None
    tags: frozenset = frozenset()
    text: str = ""
    # The request that this answers, and the tags of the channel that it came on.
    question: object = None
    deliveries: object = None
