"""Messages go round between a queue of work and one where they wait, as people build retries with a delay; at
any moment each of them is in one place."""

from collections import Counter

from deadline import limit
from lives import PERSISTENT, lives  # noqa: F401

WORK, WAIT = "retry-work", "retry-wait"
WAIT_MILLISECONDS = 200
MESSAGES = 300
# What a client has without an answer at the first crash.
OUT = 20
RETRIES = 5
BODY = b"x" * 5000


def declare(channel) -> None:
    to = {"x-dead-letter-exchange": ""}
    channel.queue_declare(WORK, durable=True, arguments=to | {"x-dead-letter-routing-key": WAIT})
    arguments = to | {"x-dead-letter-routing-key": WORK, "x-message-ttl": WAIT_MILLISECONDS}
    channel.queue_declare(WAIT, durable=True, arguments=arguments)


def deaths(properties) -> dict[tuple[str, str], int]:
    headers = properties.headers or {}
    return {(d["queue"], d["reason"]): d["count"] for d in headers.get("x-death", [])}


class Worker:
    """Rejects each message some times, and then acknowledges it."""

    def __init__(self):
        self.rejected = Counter()
        self.done: set[int] = set()
        # How often a message came for the first time after so many rounds.
        self.fresh = Counter()
        self.redelivered = 0

    def take(self, channel, method, properties, body) -> None:
        number = int(body.partition(b":")[0])
        found = deaths(properties)
        rounds = found.get((WORK, "rejected"), 0)
        assert rounds <= self.rejected[number], "it was rejected more often than anybody did"
        assert found.get((WAIT, "expired"), 0) == rounds
        if not method.redelivered:
            self.fresh[number, rounds] += 1
        else:
            self.redelivered += 1
        if rounds < RETRIES:
            # Noted first: a rejection that fails may have arrived all the same.
            self.rejected[number] += 1
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            self.done.add(number)
            channel.basic_ack(method.delivery_tag)

    def work(self, channel, until=lambda: False) -> None:
        channel.basic_qos(prefetch_count=20)
        for method, properties, body in channel.consume(WORK, inactivity_timeout=0.05):
            if method is not None:
                self.take(channel, method, properties, body)
            if until():
                break
        channel.cancel()

    @property
    def doubled(self) -> list[tuple[int, int]]:
        return [key for key, count in self.fresh.items() if count > 1]


def test_a_circle_of_retries_survives_crashes(lives):  # noqa: F811
    worker = Worker()
    with limit(90):
        channel = lives.open()
        declare(channel)
        for number in range(MESSAGES):
            body = b"%d:" % number + BODY
            channel.basic_publish("", WORK, body, PERSISTENT, mandatory=True)
        # Chance may find a moment for each crash at which all messages wait.
        lives.die_with_out(WORK, OUT)
        lives.play(6, worker.work, seconds=(0.1, 0.3))
        channel = lives.open()
        left_to_do = MESSAGES - len(worker.done)
        worker.work(
            channel,
            until=lambda: len(worker.done) == MESSAGES
            and lives.count(channel, WORK) == lives.count(channel, WAIT) == 0,
        )
        lives.restart(channel)
        channel = lives.open()
        left = lives.count(channel, WORK) + lives.count(channel, WAIT)
    print(
        f"{sum(worker.rejected.values())} rejections; {worker.redelivered} messages came again;"
        f" {left_to_do} were not done at the last crash"
    )
    assert worker.doubled == []
    assert worker.done == set(range(MESSAGES))
    assert left == 0
    # At least those of the first crash; others are by chance.
    assert worker.redelivered >= OUT
