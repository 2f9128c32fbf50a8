"""One client at work while the broker is killed again and again, at moments that chance finds."""

import os
import random
import threading

import pika
import pytest

from broker import Broker
from test_crash import SHALLOW

PERSISTENT = pika.BasicProperties(delivery_mode=2)
FENCE = "fence"


class Lives:
    def __init__(self, broker: Broker, request):
        self.broker = broker
        self.seed = request.config.getoption("seed") or random.randrange(1 << 32)
        self.chance = random.Random(self.seed)
        print(f"\nseed {self.seed}")

    def open(self):
        """A channel that waits for the confirm of each message."""
        channel = pika.BlockingConnection(pika.URLParameters(self.broker.url)).channel()
        channel.confirm_delivery()
        return channel

    def play(self, count: int, work, seconds=(0.2, 0.6)) -> None:
        """`work(channel)` begins so many times, and ends each time with the broker's death."""
        for _ in range(count):
            channel = self.open()
            killer = threading.Timer(self.chance.uniform(*seconds), self.broker.kill)
            killer.start()
            try:
                work(channel)
                raise AssertionError("the work ended before the broker did")
            except (pika.exceptions.AMQPConnectionError, pika.exceptions.ChannelWrongStateError):
                killer.join()
            finally:
                killer.cancel()
            self.broker.start()

    def die_with_out(self, queue: str, count: int) -> None:
        """Kills the broker while a client has so many messages of a queue and has answered none of them."""
        channel = self.open()
        for _ in range(count):
            method, _, _ = channel.basic_get(queue)
            assert method is not None, f"{queue} has too few messages"
        self.broker.kill()
        self.broker.start()

    def restart(self, channel) -> None:
        """Kills the broker after all that was said on a channel is durable."""
        channel.queue_declare(FENCE, durable=True)
        channel.basic_publish("", FENCE, b"fence", PERSISTENT, mandatory=True)
        self.broker.kill()
        self.broker.start()

    def count(self, channel, queue: str) -> int:
        return channel.queue_declare(queue, passive=True).method.message_count


@pytest.fixture(params=[(), SHALLOW], ids=["log", "lanes"])
def lives(tmp_path, request):
    if os.environ.get("MARTLET_TEST_URL"):
        pytest.skip("the broker of MARTLET_TEST_URL cannot be killed")
    broker = Broker(tmp_path, *request.param)
    broker.start()
    try:
        yield Lives(broker, request)
        assert broker.stop() == 0, "the broker's exit status after SIGTERM"
    finally:
        broker.end()
