"""The broker is killed again and again while clients commit; each commit is there whole or not at all."""

import random

import pytest

from client import Client, Stage
from deadline import limit
from inbox import drain
from test_crash import broker, crash, open_channel  # noqa: F401
from transactor import (
    DEAD,
    LEFT,
    NEVER,
    PERSISTENT,
    RIGHT,
    SOURCE,
    Transactor,
    body_of,
    declare,
    is_rejected,
    number_of,
)

ROUND_SECONDS = (0.05, 0.6)
TRANSACTORS = 3
MESSAGES_PER_ROUND = 1500


def fill(channel, first: int) -> int:
    """Gives the source more than are moved in a round, all or none; returns the next number."""
    channel.tx_select()
    for number in range(first, first + MESSAGES_PER_ROUND):
        channel.basic_publish("", SOURCE, body_of(number), PERSISTENT)
    channel.tx_commit()
    channel.connection.close()
    return first + MESSAGES_PER_ROUND


def rest(channel, queue: str) -> list[int]:
    count = channel.queue_declare(queue, passive=True).method.message_count
    bodies = [delivery.body for delivery in drain(channel, queue, count, 60)]
    assert NEVER not in bodies, f"what was rolled back is in {queue}"
    return sorted(number_of(body) for body in bodies)


def faults(published: int, committed: list[int], found: dict[str, list[int]]):
    """What of the messages is not all or nothing."""
    for queue, numbers in found.items():
        if len(set(numbers)) != len(numbers):
            yield f"{queue} has messages twice"
    if found[LEFT] != found[RIGHT]:
        yield f"in one queue alone: {sorted(set(found[LEFT]) ^ set(found[RIGHT]))[:9]}"
    moved, stayed = set(found[LEFT]), set(found[SOURCE])
    if moved & stayed:
        yield f"moved and still there: {sorted(moved & stayed)[:9]}"
    if moved | stayed != set(range(published)):
        yield f"gone: {sorted(set(range(published)) - moved - stayed)[:9]}"
    if not set(committed) <= moved:
        yield f"committed and not there: {sorted(set(committed) - moved)[:9]}"
    if set(found[DEAD]) != {number for number in moved if is_rejected(number)}:
        yield "dead letters are not those of the commits"


def test_commits_are_whole_or_nothing(broker, request):  # noqa: F811
    rounds = request.config.getoption("rounds")
    seed = request.config.getoption("seed") or random.randrange(1 << 32)
    print(f"\n{rounds} rounds, seed {seed}")
    chance, stage = random.Random(seed), Stage()
    with limit(60 + 4 * rounds):
        broker.start()
        declare(open_channel(broker))
        published = fill(open_channel(broker), 0)
        clients = [Client(Transactor(broker.url), stage) for _ in range(TRANSACTORS)]
        try:
            for _ in range(rounds):
                stage.pause(chance.uniform(*ROUND_SECONDS))
                for client in clients:
                    client.check()
                crash(broker, stage)
                published = fill(open_channel(broker), published)
            stage.pause(0.5)
            stage.stop.set()
            records = [client.record() for client in clients]
        finally:
            for client in clients:
                client.end()
        crash(broker, stage)
        channel = open_channel(broker)
        found = {queue: rest(channel, queue) for queue in (SOURCE, LEFT, RIGHT, DEAD)}
        channel.connection.close()
        assert broker.stop() == 0
    committed = [number for record in records for number in record.committed]
    doubtful = sum(record.doubtful for record in records)
    print(f"{published} messages, {len(committed)} committed, {doubtful} in doubt")
    wrong = list(faults(published, committed, found))
    if wrong:
        pytest.fail("\n".join([f"broken promises, seed {seed}:", *wrong]), pytrace=False)
    assert len(committed) >= 10 * rounds, "too little happened in the rounds to prove anything"
    assert doubtful > 0, "no crash came into a commit"


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[LEFT].pop(),
        lambda found: found[RIGHT].append(3),
        lambda found: found[SOURCE].append(0),
        lambda found: found[SOURCE].pop(),
        lambda found: found[DEAD].pop(),
        lambda found: [found[queue].remove(1) for queue in (LEFT, RIGHT)],
    ],
)
def test_broken_commits_are_found(change):
    found = {SOURCE: [3, 4], LEFT: [0, 1, 2], RIGHT: [0, 1, 2], DEAD: [0]}
    assert list(faults(5, [0, 1], found)) == []
    change(found)
    assert list(faults(5, [0, 1], found))
