"""The ledger finds each kind of broken promise, and nothing in a record where all were kept."""

import dataclasses

import pytest

from consumer import ConsumerRecord, Delivery
from ledger import Ledger
from publisher import PublisherRecord
from topology import BATCH, FENCE, HOARD, QUEUES, WORK, Identity, body_of, identity_of, queues_of

SOURCE = "publisher:0"
FENCE_SOURCE = f"{FENCE}:{WORK}#one"
LAST_ROUND = 2


def message(number):
    return Identity(SOURCE, number)


@pytest.fixture
def publisher():
    return PublisherRecord(SOURCE, attempted=12, confirmed=list(range(10)))


@pytest.fixture
def consumer():
    """Got 0, 2, 3, 4 from WORK; acknowledged 0 for certain and 2 perhaps; got 3 again later."""
    return ConsumerRecord(
        FENCE_SOURCE,
        WORK,
        deliveries=[Delivery(0, message(n), False) for n in (0, 2, 3, 4)]
        + [Delivery(1, message(3), True)],
        acknowledged={message(0), message(2)},
        settled={message(0): 0},
        attempted=1,
        confirmed=[0],
    )


@pytest.fixture
def rest():
    left = {
        queue: [
            Delivery(LAST_ROUND, message(n), False)
            for n in range(10)
            if queue in queues_of(message(n))
        ]
        for queue in QUEUES
    }
    left[WORK] = [
        Delivery(LAST_ROUND, d.identity, d.identity.number <= 4)
        for d in left[WORK]
        if d.identity not in (message(0), message(2))
    ]
    left[WORK].append(Delivery(LAST_ROUND, Identity(FENCE_SOURCE, 0), False))
    return left


def faults(publisher, consumer, rest):
    return " ".join(Ledger([publisher], [consumer], rest).check())


def test_kept_promises_have_no_faults(publisher, consumer, rest):
    assert faults(publisher, consumer, rest) == ""


def test_doubtful_messages_may_be_there_or_not(publisher, consumer, rest):
    rest[HOARD].append(Delivery(LAST_ROUND, message(10), False))
    assert faults(publisher, consumer, rest) == ""


def test_lost_message_is_found(publisher, consumer, rest):
    del rest[HOARD][3]
    assert f"1 confirmed and lost from {HOARD}" in faults(publisher, consumer, rest)


def test_lost_message_of_a_consumer_is_found(publisher, consumer, rest):
    rest[WORK].pop()
    assert f"1 confirmed and lost from {WORK}" in faults(publisher, consumer, rest)


def test_message_that_comes_back_is_found(publisher, consumer, rest):
    rest[WORK].insert(0, Delivery(LAST_ROUND, message(0), True))
    assert f"1 acknowledged and delivered again by {WORK}" in faults(publisher, consumer, rest)


def test_acknowledgement_in_doubt_may_be_forgotten(publisher, consumer, rest):
    rest[WORK].insert(0, Delivery(LAST_ROUND, message(2), True))
    assert faults(publisher, consumer, rest) == ""


def test_untruthful_redelivery_is_found(publisher, consumer, rest):
    consumer.deliveries[-1] = consumer.deliveries[-1]._replace(redelivered=False)
    assert f"1 delivered again by {WORK} as if for the first time" in faults(
        publisher, consumer, rest
    )


def test_doubled_message_is_found(publisher, consumer, rest):
    rest[BATCH].append(rest[BATCH][-1])
    assert f"1 delivered twice in one round by {BATCH}" in faults(publisher, consumer, rest)


def test_overtaking_is_found(publisher, consumer, rest):
    rest[HOARD].reverse()
    assert f"out of order in {HOARD} at the end" in faults(publisher, consumer, rest)
    consumer.deliveries[1], consumer.deliveries[2] = consumer.deliveries[2], consumer.deliveries[1]
    assert f"1 out of order at {FENCE_SOURCE}" in faults(publisher, consumer, rest)


def test_phantom_is_found(publisher, consumer, rest):
    rest[HOARD].append(Delivery(LAST_ROUND, message(99), False))
    assert f"1 delivered by {HOARD} though never published" in faults(publisher, consumer, rest)


def test_message_in_a_wrong_queue_is_found(publisher, consumer, rest):
    stray = next(n for n in range(10) if BATCH not in queues_of(message(n)))
    rest[BATCH].insert(0, Delivery(LAST_ROUND, message(stray), False))
    assert f"1 delivered by {BATCH} though never published" in faults(publisher, consumer, rest)


def test_refused_and_returned_messages_are_found(publisher, consumer, rest):
    refused = dataclasses.replace(publisher, rejected=[10], returned=1)
    text = faults(refused, consumer, rest)
    assert (
        "1 refused by the broker: 10" in text and f"1 messages of {SOURCE} found no queue" in text
    )


def test_damaged_body_is_found():
    for number in (0, 15, 250):
        body = body_of(message(number))
        assert identity_of(body) == message(number)
        for damaged in (body[:-1], body + b"x", body[:50] + b"!" + body[51:]):
            with pytest.raises(AssertionError):
                identity_of(damaged)
