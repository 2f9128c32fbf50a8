"""A publisher of the crash test: numbers its messages and remembers which were confirmed."""

import itertools
from dataclasses import dataclass, field

from client import Stage
from confirmed_publisher import ConfirmedPublisher
from topology import Identity, body_of, route

# More than fits into a round, so that the broker is killed while it is busy, and yet a bound.
MESSAGES_PER_ROUND = 5000
WINDOW = 100


@dataclass
class PublisherRecord:
    source: str
    # Numbers below this may have been published; each exists at most once in each of its queues.
    attempted: int = 0
    confirmed: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    returned: int = 0


class Publisher:
    """Publishes persistent messages, a bounded number in each round. It repeats none."""

    def __init__(self, url: str, name: str):
        self._url = url
        self._source = f"publisher:{name}"

    def __call__(self, stage: Stage) -> PublisherRecord:
        record = PublisherRecord(self._source)
        while not stage.stop.is_set():
            round_number, first = stage.round, record.attempted
            session = ConfirmedPublisher(
                self._url, self._messages(stage, first), window=WINDOW, mandatory=True
            )
            failure = session.run()
            record.attempted += session.sent
            record.confirmed += [first + index for index in session.confirmed]
            record.rejected += [first + index for index in session.rejected]
            record.returned += len(session.returned)
            while failure is None and stage.round == round_number and not stage.stop.is_set():
                stage.pause()
            stage.pause()
        return record

    def _messages(self, stage: Stage, first: int):
        for number in itertools.islice(itertools.count(first), MESSAGES_PER_ROUND):
            if stage.stop.is_set():
                return
            identity = Identity(self._source, number)
            yield (*route(identity), body_of(identity))
