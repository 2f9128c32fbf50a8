"""What an exchange keeps back comes once, not early, and in the order in which it was due, whatever crashes."""

import time
from dataclasses import dataclass

import pika

from deadline import limit
from inbox import drain
from lives import lives  # noqa: F401

EXCHANGE, KEPT, SEEN = "later", "later-kept", "later-seen"
DELAY_MILLISECONDS = 3000
# The broker's clock is that of the beginning of a turn.
EARLY_SECONDS = 0.02


@dataclass
class Sent:
    delay: float
    before: float
    # None while it is not known whether the broker has it.
    after: float | None = None

    @property
    def due_first(self) -> float:
        return self.before + self.delay

    @property
    def due_last(self) -> float:
        return self.after + self.delay


def declare(channel) -> None:
    arguments = {"x-delayed-type": "fanout"}
    channel.exchange_declare(EXCHANGE, "x-delayed-message", durable=True, arguments=arguments)
    for queue in (KEPT, SEEN):
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, EXCHANGE)


def early(sent: list[Sent], arrivals: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Those that came before they were due, and by how much."""
    pairs = [(number, sent[number].due_first - at) for number, at in arrivals]
    return [(number, seconds) for number, seconds in pairs if seconds > EARLY_SECONDS]


def overtaken(sent: list[Sent], numbers: list[int]) -> list[int]:
    """Those that come after one that was certainly due later."""
    latest, found = 0.0, []
    for number in numbers:
        if sent[number].after is None:
            continue
        if sent[number].due_last + EARLY_SECONDS < latest:
            found.append(number)
        latest = max(latest, sent[number].due_first)
    return found


def test_delays_survive_crashes(lives):  # noqa: F811
    sent: list[Sent] = []
    arrivals: list[tuple[int, float]] = []

    def note(_channel, _method, _properties, body):
        arrivals.append((int(body.partition(b"/")[0]), time.time()))

    def work(channel):
        reader = channel.connection.channel()
        reader.basic_consume(SEEN, note, auto_ack=True)
        while True:
            publish(channel)
            channel.connection.process_data_events(0)

    def publish(channel):
        delay = lives.chance.randrange(1, DELAY_MILLISECONDS)
        properties = pika.BasicProperties(delivery_mode=2, headers={"x-delay": delay})
        body = b"%d/" % len(sent) + b"x" * 3000
        message = Sent(delay / 1000, time.time())
        sent.append(message)
        channel.basic_publish(EXCHANGE, "", body, properties)
        message.after = time.time()

    with limit(90):
        declare(lives.open())
        lives.play(8, work)
        lives.broker.kill()
        # While nobody is there the rest becomes due.
        time.sleep(max(0.0, max(message.due_first for message in sent) - time.time()))
        lives.broker.start()
        channel = lives.open()
        confirmed = {number for number, message in enumerate(sent) if message.after is not None}
        while lives.count(channel, KEPT) < len(confirmed):
            channel.connection.process_data_events(0.05)
        letters = drain(channel, KEPT, lives.count(channel, KEPT), 30)
    numbers = [int(letter.body.partition(b"/")[0]) for letter in letters]
    print(f"{len(sent)} messages, {len(confirmed)} confirmed, {len(arrivals)} seen when they were due")
    assert len(set(numbers)) == len(numbers), "doubled"
    assert confirmed <= set(numbers), f"lost: {sorted(confirmed - set(numbers))[:9]}"
    assert early(sent, arrivals) == []
    assert overtaken(sent, numbers) == []
    for number, letter in zip(numbers, letters, strict=True):
        assert letter.properties.headers["x-delay"] == -round(sent[number].delay * 1000)
    assert len(arrivals) > 100 and len(sent) > 500, "too little happened to prove anything"


def test_broken_delays_are_found():
    sent = [Sent(1, 10, 10.1), Sent(0.5, 10.2, 10.25), Sent(5, 10.3)]
    assert early(sent, [(0, 11.0), (1, 10.8)]) == []
    assert early(sent, [(0, 10.9)]) != []
    assert overtaken(sent, [1, 0, 2]) == []
    assert overtaken(sent, [0, 1, 2]) == [1]
