"""Settling: how the runner knows that the broker has nothing more to say about a command.

First every request must be answered and every message confirmed. Then rounds of questions follow
whose answers cannot overtake what is on its way: on each open channel a passive declare of
amq.direct (a channel works in order, so what was published before is routed), then a passive
declare of each queue of the scenario (it has handed out what it can), then each channel again (what
the queues handed out has been written). Rounds go on until one, or two where there are queues,
brought nothing: RabbitMQ's queues may answer a passive declare before older business.
"""

from control import ask

ROUNDS_MAX = 100
BARRIER = ("exchange.declare", {"exchange": "amq.direct", "type": "direct", "passive": True,
                                "durable": True})


class Settling:
    """`stage` has the pump, the control connection and the limit; the rest is the scenario's."""

    def __init__(self, stage, connections, trace):
        self.stage = stage
        self.pump = stage.pump
        self.limit = stage.limit
        self.connections = connections
        self.trace = trace
        # The name on the wire of each queue to ask, with its owner where it is exclusive.
        self.queues = {}

    def settle(self):
        self.await_answers()
        quiet = 0
        for _ in range(ROUNDS_MAX):
            before = len(self.trace.events)
            self.barrier()
            self.ask_queues()
            self.barrier()
            self.await_answers()
            quiet = quiet + 1 if len(self.trace.events) == before else 0
            if quiet > bool(self.queues):
                break
        for connection in self.connections.values():
            connection.doubtful = False

    # Answers.

    def await_answers(self):
        if not self.pump.until(lambda: not any(self.owed()), self.limit):
            for connection, channel, text in list(self.owed()):
                connection.anomaly(channel.number, f"{text} within {self.limit:g} s")
                connection.finished = False
                channel.questions.clear()
                channel.unconfirmed.clear()

    def owed(self):
        """What the broker still has to send: (connection, channel, what is missing)."""
        for connection in self.connections.values():
            for channel in connection.channels.values():
                for question in channel.questions:
                    if not question.hidden:
                        yield connection, channel, f"no answer to {question.name}"
                if channel.unconfirmed and channel.state == "open":
                    yield connection, channel, f"no confirm for {sorted(channel.unconfirmed)}"
            if connection.finished and connection.state != "closed":
                yield connection, connection.channel(0), "socket not closed"

    # Barriers.

    def barrier(self):
        questions = []
        for connection in self.connections.values():
            if connection.state == "open" and not connection.torn:
                questions += [connection.send_method(channel.number, *BARRIER, hidden=True)
                              for channel in self.askable(connection)]
        if not self.pump.until(lambda: all(question.over for question in questions), self.limit):
            for connection in self.connections.values():
                for channel in connection.channels.values():
                    if any(question in questions for question in channel.questions):
                        connection.anomaly(channel.number, f"no reaction within {self.limit:g} s")
                        channel.questions.clear()
                        channel.unsure = True

    def askable(self, connection):
        """The channels to ask; one of the runner's own where the scenario's cannot tell."""
        channels = [c for c in connection.channels.values() if c.number and c.usable]
        if channels or not connection.doubtful:
            return channels
        own = connection.channel(own_number(connection))
        own.hidden = True
        if own.state == "closed":
            connection.send_method(own.number, "channel.open", {}, hidden=True)
        return [own]

    def ask_queues(self):
        for owner in set(self.queues.values()):
            connection, number = self.stage.control.connection, 1
            if owner is not None:
                connection, number = owner, own_number(owner)
            mine = [name for name, other in self.queues.items() if other is owner]
            if connection.state != "open" or connection.torn:
                self.forget(mine)
                continue
            while mine:
                granted = ask(connection, number, self.pump, self.limit, [
                    ("queue.declare", {"queue": name, "passive": True}) for name in mine])
                if all(granted) or connection.state != "open":
                    break
                # The first that was refused closed the channel. The others are asked again.
                refused = granted.index(False)
                self.forget(mine[refused:refused + 1])
                mine = mine[:refused] + mine[refused + 1:]

    def forget(self, names):
        for name in names:
            self.queues.pop(name, None)


def own_number(connection):
    """The channel that the runner keeps for itself on a scenario's connection."""
    return min(connection.channel_max, 2040)
