"""A client beside the attack: what it feels of it is what is measured."""

import multiprocessing
import re
import select
import time

from frames import consume, method, publish, short
from peer import Peer

PERIOD_SECONDS = 0.01
PATIENCE_SECONDS = 20


def bystand(port, pipe):
    """Says when it has begun, then, once told to stop, each message's due time and round trip."""
    peer = Peer(port).open()
    peer.send(method(1, 50, 10, b"\0\0" + short("bystander") + b"\x04\0\0\0\0"))
    peer.expect(50, 11)
    peer.send(method(1, 85, 10, b"\0"))
    peer.expect(85, 11)
    peer.send(consume("bystander", "b", no_ack=True))
    peer.expect(60, 21)
    peer.socket.setblocking(False)
    pipe.send(None)
    samples, waiting, arrived = [], [], 0
    due = time.monotonic()
    stop_at = None
    while stop_at is None or (arrived < len(waiting) and time.monotonic() < stop_at):
        now = time.monotonic()
        while stop_at is None and due <= now:
            waiting.append(due)
            peer.send(publish("", "bystander", b"%08d" % len(waiting)))
            due += PERIOD_SECONDS
        ready, _, _ = select.select([peer.socket, pipe], [], [], max(0, due - time.monotonic()))
        if pipe in ready and stop_at is None:
            pipe.recv()
            stop_at = time.monotonic() + PATIENCE_SECONDS
        if peer.socket in ready:
            peer.read()
            now = time.monotonic()
            taken = 0
            # A body frame ends with its number; the rest of what comes are confirms.
            for body in re.finditer(rb"\x03\x00\x01\x00\x00\x00\x08(\d{8})\xce", peer.received):
                samples.append((waiting[arrived], now - waiting[arrived]))
                arrived += 1
                taken = body.end()
            del peer.received[:taken]
        if stop_at is not None:
            due = time.monotonic() + 0.1
    samples += [(since, PATIENCE_SECONDS) for since in waiting[arrived:]]
    pipe.send(samples)


class Bystander:
    def __init__(self, port):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=bystand, args=(port, other), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def end(self):
        self.pipe.send(None)
        samples = self.pipe.recv()
        self.process.join()
        return samples


def quantiles(samples, since, until):
    values = sorted(latency * 1000 for due, latency in samples if since <= due < until)
    if not values:
        return "-"
    p99 = values[min(len(values) - 1, len(values) * 99 // 100)]
    return "/".join(f"{one:.1f}" for one in (values[len(values) // 2], p99, values[-1]))
