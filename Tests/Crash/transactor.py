"""A client of the crash test that moves messages from one queue to others, each in a transaction."""

from dataclasses import dataclass, field

import pika

from client import Stage

SOURCE, LEFT, RIGHT, DEAD = "tx-source", "tx-left", "tx-right", "tx-dead"
PERSISTENT = pika.BasicProperties(delivery_mode=2)
NEVER = b"never"


def declare(channel) -> None:
    letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
    channel.queue_declare(SOURCE, durable=True, arguments=letters)
    for queue in (LEFT, RIGHT, DEAD):
        channel.queue_declare(queue, durable=True)


def is_rejected(number: int) -> bool:
    """Such a message is not acknowledged but rejected, and goes to the dead letters as well."""
    return number % 5 == 0


def body_of(number: int) -> bytes:
    """Now and then of many pages."""
    return b"%d/" % number + b"x" * (100_000 if number % 97 == 96 else 50)


def number_of(body: bytes) -> int:
    number = int(body.partition(b"/")[0])
    assert body == body_of(number), f"the body of {number} is damaged"
    return number


@dataclass
class TransactorRecord:
    # Numbers whose commit was answered.
    committed: list[int] = field(default_factory=list)
    # Messages of transactions that were being committed when the connection ended.
    doubtful: int = 0


class Transactor:
    """Takes up to three messages, publishes each to two queues, answers them, and commits."""

    def __init__(self, url: str):
        self._url = url

    def __call__(self, stage: Stage) -> TransactorRecord:
        record = TransactorRecord()
        while not stage.stop.is_set():
            try:
                self._work(stage, record)
            except (pika.exceptions.AMQPConnectionError, pika.exceptions.AMQPHeartbeatTimeout):
                stage.pause()
        return record

    def _work(self, stage: Stage, record: TransactorRecord) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        channel.tx_select()
        count = 0
        while not stage.stop.is_set():
            count += 1
            taken = [channel.basic_get(SOURCE) for _ in range(1 + count % 3)]
            taken = [(method, number_of(body)) for method, _, body in taken if method]
            if not taken:
                stage.pause()
                continue
            if count % 4 == 0:
                self._perform(channel, taken, lambda number: NEVER)
                channel.tx_rollback()
            self._perform(channel, taken, body_of)
            record.doubtful += len(taken)
            channel.tx_commit()
            record.doubtful -= len(taken)
            record.committed += [number for _, number in taken]
        connection.close()

    @staticmethod
    def _perform(channel, taken, body) -> None:
        for method, number in taken:
            for queue in (LEFT, RIGHT):
                channel.basic_publish("", queue, body(number), PERSISTENT)
            if is_rejected(number):
                channel.basic_reject(method.delivery_tag, requeue=False)
            else:
                channel.basic_ack(method.delivery_tag)
