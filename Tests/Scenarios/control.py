"""The runner's own connection: it asks queues whether they are done, and removes what was made."""

from connection import Connection
from handshake import shake


class ControlFailed(Exception):
    pass


class Control:
    def __init__(self, pump, address, limit):
        self.pump = pump
        self.address = address
        self.limit = limit
        self.open()

    def open(self):
        place = (self.address.host, self.address.port)
        self.connection = Connection("control", place, lambda event: None)
        self.pump.add(self.connection)
        shake(self.connection, self.pump, self.address, self.limit)
        if self.connection.state != "open":
            raise ControlFailed("the broker refuses the runner's own connection")

    @property
    def product(self):
        """The broker's name in lower case, as scenarios name it.

        Martlet calls itself by another product's name, since clients choose by it what they do;
        what it is stands in its platform.
        """
        properties = dict(self.connection.start.arguments["server-properties"])
        is_martlet = properties["platform"].content.startswith("Martlet")
        return "martlet" if is_martlet else properties["product"].content.lower()

    def close(self):
        self.connection.send_method(0, "connection.close", {"reply-code": 200})
        self.pump.until(lambda: self.connection.state == "closed", 1)
        self.connection.close_socket()

    def remove(self, queues, exchanges):
        """Deletes by name; what is missing or not ours to delete is left."""
        for name in queues:
            self.ask("queue.delete", {"queue": name})
        for name in exchanges:
            self.ask("exchange.delete", {"exchange": name})

    def ask(self, name, arguments):
        return ask(self.connection, 1, self.pump, self.limit, [(name, arguments)])[0]


def ask(connection, number, pump, limit, requests):
    """Sends hidden requests on the runner's own channel, in one go. Says for each whether it was
    granted; the first that was not has closed the channel, so those behind it were not either."""
    channel = connection.channel(number)
    channel.hidden = True
    questions = []
    if channel.state == "closed":
        questions.append(connection.send_method(number, "channel.open", {}, hidden=True))
    questions += [connection.send_method(number, name, arguments, hidden=True)
                  for name, arguments in requests]
    questions = [question for question in questions if question]
    pump.until(lambda: all(question.over for question in questions), limit)
    granted = [question.answer is not None for question in questions]
    return granted[len(granted) - len(requests):] if len(granted) >= len(requests) \
        else [False] * len(requests)
