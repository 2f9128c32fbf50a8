"""The books of the crash test: what clients were promised, and what they got."""

from collections import Counter, defaultdict

from consumer import ConsumerRecord, Delivery
from publisher import PublisherRecord
from topology import QUEUES, Identity, queues_of

EXAMPLES = 5


class Ledger:
    """Compares the records of all clients with what was left in the queues at the end."""

    def __init__(
        self,
        publishers: list[PublisherRecord],
        consumers: list[ConsumerRecord],
        drained: dict[str, list[Delivery]],
    ):
        self._publishers = publishers
        self._consumers = consumers
        self._drained = drained
        self._attempted = {record.source: record.attempted for record in [*publishers, *consumers]}
        self.faults: list[str] = []

    def check(self) -> list[str]:
        """The broken promises, none when all were kept."""
        for record in self._publishers:
            self._note("refused by the broker", record.rejected)
            if record.returned:
                self.faults.append(f"{record.returned} messages of {record.source} found no queue")
        for queue in QUEUES:
            consumers = [record for record in self._consumers if record.queue == queue]
            self._check_nothing_lost(queue, consumers)
            self._check_nothing_returns(queue, consumers)
            self._check_repetitions(queue, consumers)
            self._check_order(queue, consumers)
        return self.faults

    def summary(self) -> str:
        confirmed = sum(len(record.confirmed) for record in self._publishers)
        settled = sum(len(record.settled) for record in self._consumers)
        delivered = sum(len(record.deliveries) for record in self._consumers)
        redelivered = sum(d.redelivered for record in self._consumers for d in record.deliveries)
        drained = sum(map(len, self._drained.values()))
        unknown = sum(record.attempted - len(record.confirmed) for record in self._publishers)
        return (
            f"{confirmed} messages confirmed, {unknown} in doubt; {delivered} delivered, of them "
            f"{redelivered} again; {settled} acknowledged for certain; {drained} left at the end"
        )

    def busy(self, rounds: int) -> bool:
        """Whether enough happened for the result to mean something."""
        return (
            all(len(record.confirmed) >= 20 * rounds for record in self._publishers)
            and all(len(record.settled) >= rounds for record in self._consumers)
            and any(d.redelivered for record in self._consumers for d in record.deliveries)
        )

    def _check_nothing_lost(self, queue: str, consumers: list[ConsumerRecord]) -> None:
        """A confirmed message is at the end in its queue, unless a consumer has acknowledged it."""
        accounted = {delivery.identity for delivery in self._drained[queue]}
        for record in consumers:
            accounted |= record.acknowledged
        confirmed = (
            Identity(record.source, number)
            for record in [*self._publishers, *self._consumers]
            for number in record.confirmed
        )
        self._note(
            f"confirmed and lost from {queue}",
            (
                identity
                for identity in confirmed
                if queue in queues_of(identity) and identity not in accounted
            ),
        )

    def _check_nothing_returns(self, queue: str, consumers: list[ConsumerRecord]) -> None:
        """What was acknowledged for certain in one round is not delivered in a later one."""
        settled: dict[Identity, int] = {}
        for record in consumers:
            settled.update(record.settled)
        self._note(
            f"acknowledged and delivered again by {queue}",
            (
                delivery
                for delivery in self._deliveries(queue, consumers)
                if settled.get(delivery.identity, delivery.round) < delivery.round
            ),
        )

    def _check_repetitions(self, queue: str, consumers: list[ConsumerRecord]) -> None:
        """A message comes once in a round, and tells when a client has had it before."""
        first: dict[Identity, int] = {}
        times = Counter()
        for delivery in self._deliveries(queue, consumers):
            first[delivery.identity] = min(
                delivery.round, first.get(delivery.identity, delivery.round)
            )
            times[delivery.identity, delivery.round] += 1
        self._note(
            f"delivered twice in one round by {queue}",
            (key for key, count in times.items() if count > 1),
        )
        self._note(
            f"delivered again by {queue} as if for the first time",
            (
                delivery
                for delivery in self._deliveries(queue, consumers)
                if delivery.round > first[delivery.identity] and not delivery.redelivered
            ),
        )
        self._note(
            f"delivered by {queue} though never published",
            (
                identity
                for identity in first
                if identity.number >= self._attempted.get(identity.source, 0)
                or queue not in queues_of(identity)
            ),
        )

    def _check_order(self, queue: str, consumers: list[ConsumerRecord]) -> None:
        """A publisher's messages stay in order: new ones at each consumer, and all at the end."""
        for record in consumers:
            rounds = defaultdict(list)
            for delivery in record.deliveries:
                if not delivery.redelivered:
                    rounds[delivery.round].append(delivery.identity)
            for identities in rounds.values():
                self._note(f"out of order at {record.source}", overtaken(identities))
        self._note(
            f"out of order in {queue} at the end",
            overtaken([delivery.identity for delivery in self._drained[queue]]),
        )

    def _deliveries(self, queue: str, consumers: list[ConsumerRecord]):
        for record in consumers:
            yield from record.deliveries
        yield from self._drained[queue]

    def _note(self, what: str, culprits) -> None:
        culprits = list(culprits)
        if culprits:
            self.faults.append(
                f"{len(culprits)} {what}: {', '.join(map(str, culprits[:EXAMPLES]))}"
            )


def overtaken(identities: list[Identity]) -> list[Identity]:
    """Those that come after a later message of their publisher."""
    highest: dict[str, int] = {}
    late = []
    for identity in identities:
        if identity.number <= highest.get(identity.source, -1):
            late.append(identity)
        highest[identity.source] = max(identity.number, highest.get(identity.source, -1))
    return late
