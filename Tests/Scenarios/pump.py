"""The pump: waits for whatever any connection receives, instead of sleeping."""

import select
import time


class Pump:
    def __init__(self):
        self.connections = []

    def add(self, connection):
        self.connections.append(connection)

    @property
    def live(self):
        return [connection for connection in self.connections if connection.state != "closed"]

    def turn(self, timeout):
        """Waits for one event at most `timeout` seconds; says whether something was read."""
        self.connections = self.live
        ready, _, _ = select.select([c.socket for c in self.connections], [], [], timeout)
        for connection in list(self.connections):
            if connection.state != "closed" and connection.socket in ready:
                connection.receive()
        return bool(ready)

    def until(self, condition, limit):
        """Turns until `condition()` holds, for at most `limit` seconds; says whether it does."""
        deadline = time.monotonic() + limit
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not self.live:
                return False
            self.turn(left)
        return True

    def until_quiet(self, seconds):
        """Turns until nothing was read for this long."""
        while self.live and self.turn(seconds):
            pass
