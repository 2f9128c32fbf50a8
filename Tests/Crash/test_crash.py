"""The broker is killed again and again while clients publish and consume; no promise may be broken.

    pytest Tests/Crash --rounds 20 --seed 1

A round ends with SIGKILL at a random moment. The clients are processes that connect again by
themselves, and keep records of what the broker promised; at the end everything is counted.
"""

import os
import random

import pika
import pytest

from broker import Broker
from client import Client, Stage
from consumer import Consumer, Delivery
from deadline import limit
from inbox import drain
from ledger import Ledger
from publisher import Publisher
from topology import BATCH, DIRECT, FANOUT, HOARD, QUEUES, WORK, declare, identity_of

ROUND_SECONDS = (0.05, 0.8)
PUBLISHERS = 3


# Whatever is not consumed at once moves into lane files.
SHALLOW = ("--segment-size", "1MiB", "--journal-window", "1MiB", "--journal-cache", "1MiB")


@pytest.fixture(params=[(), SHALLOW], ids=["log", "lanes"])
def broker(tmp_path, request):
    if os.environ.get("MARTLET_TEST_URL"):
        pytest.skip("the broker of MARTLET_TEST_URL cannot be killed")
    broker = Broker(tmp_path, *request.param)
    yield broker
    broker.end()


def open_channel(broker):
    return pika.BlockingConnection(pika.URLParameters(broker.url)).channel()


def crash(broker: Broker, stage: Stage) -> None:
    broker.check()
    broker.kill()
    stage.next_round()
    broker.start()


def play(broker: Broker, stage: Stage, rounds: int, chance: random.Random):
    """Runs the clients through all rounds and returns their records: publishers' and consumers'."""
    publishers = [Client(Publisher(broker.url, str(n)), stage) for n in range(PUBLISHERS)]
    consumers = [
        Client(Consumer(broker.url, WORK, "one", batch=1), stage),
        Client(Consumer(broker.url, WORK, "two", batch=1), stage),
        Client(Consumer(broker.url, BATCH, "only", batch=20), stage),
    ]
    try:
        for _ in range(rounds):
            stage.pause(chance.uniform(*ROUND_SECONDS))
            for client in [*publishers, *consumers]:
                client.check()
            crash(broker, stage)
            with open_channel(broker) as channel:
                declare(channel, passive=True)
                channel.connection.close()
        stage.stop.set()
        return [c.record() for c in publishers], [c.record() for c in consumers]
    finally:
        for client in [*publishers, *consumers]:
            client.end()


def take_rest(channel, round_number: int) -> dict[str, list[Delivery]]:
    """Everything that is in the queues, in their order."""
    rest = {}
    for queue in QUEUES:
        count = channel.queue_declare(queue, passive=True).method.message_count
        rest[queue] = [
            Delivery(round_number, identity_of(d.body), d.method.redelivered)
            for d in drain(channel, queue, count, 60)
        ]
    return rest


def check_bindings(channel) -> None:
    """Every binding still works, and works once."""
    channel.confirm_delivery()
    channel.basic_publish(FANOUT, "", b"probe", mandatory=True)
    for queue in QUEUES:
        channel.basic_publish(DIRECT, queue, b"probe", mandatory=True)
    for queue in QUEUES:
        assert [d.body for d in drain(channel, queue, 2)] == [b"probe"] * 2


def test_no_promise_is_broken_by_crashes(broker, request):
    rounds = request.config.getoption("rounds")
    seed = request.config.getoption("seed") or random.randrange(1 << 32)
    print(f"\n{rounds} rounds, seed {seed}")
    stage = Stage()
    with limit(60 + 4 * rounds):
        broker.start()
        declare(open_channel(broker))
        publishers, consumers = play(broker, stage, rounds, random.Random(seed))
        crash(broker, stage)
        lane_files = list(broker.data.glob("journal/*.lanes"))
        channel = open_channel(broker)
        rest = take_rest(channel, stage.round)
        check_bindings(channel)
        channel.connection.close()
        assert broker.stop() == 0
    ledger = Ledger(publishers, consumers, rest)
    print(ledger.summary())
    faults = ledger.check()
    if faults:
        pytest.fail("\n".join([f"broken promises, seed {seed}:", *faults]), pytrace=False)
    assert ledger.busy(rounds), "too little happened in the rounds to prove anything"
    assert len(rest[HOARD]) >= 20 * rounds
    assert lane_files or SHALLOW[0] not in broker.command, "nothing moved"
