"""One performance of a scenario: its connections, and what each command does with them."""

from collections import Counter

from command import CONNECT_OPTIONS, Command, declared_names
from connection import Connection
from content import PROPERTIES, encode_header
from frame import BODY, HEADER, HEARTBEAT, METHOD, PROTOCOL_HEADER, Frame
from handshake import shake, wonder
from methods import METHODS
from names import Names
from settling import Settling
from trace import Trace

DASHES = str.maketrans("-.", "__")


class Play:
    """`stage` has the broker, the pump, the control connection and the limits."""

    def __init__(self, stage, scenario):
        self.stage = stage
        self.declared = declared_names(scenario.commands)
        self.names = Names(self.declared, "\n".join(scenario.commands))
        self.trace = Trace(self.names)
        self.connections = {}
        self.settling = Settling(stage, self.connections, self.trace)
        self.generated = set()
        self.heartbeats = Counter()
        # The trace of the current block's commands but the last.
        self.done = []

    def emit(self, event):
        if event.kind == "heartbeat":
            self.heartbeats[event.connection] += 1
            return
        if event.name == "queue.declare-ok" and event.question:
            self.note_queue(event.connection, event.question.arguments, event.arguments["queue"])
        self.trace.events.append(event)

    def note_queue(self, connection, arguments, name):
        expires = any(key == "x-expires" for key, _ in arguments.get("arguments", []))
        if arguments.get("passive") or expires or name.startswith("amq.rabbitmq.reply-to"):
            return
        owner = self.connections[connection] if arguments.get("exclusive") else None
        self.settling.queues[name] = owner
        if name not in self.declared:
            self.generated.add(name)

    # Performing.

    def perform(self, command):
        """Does one command without waiting for its effects."""
        self.trace.ordered = self.trace.ordered or command.ordered
        for copy in command.copies():
            handler = getattr(self, "do_" + copy.verb.translate(DASHES), None)
            if handler:
                handler(copy)
            elif copy.verb in METHODS.by_name:
                self.send_method(copy)
            else:
                raise ValueError(f"unknown command {copy.verb!r}")

    def settle(self):
        self.settling.settle()

    def lines(self):
        """The trace of the current block."""
        return self.done + self.trace.lines()

    def end_command(self):
        self.done = self.lines()
        self.trace.commit()

    def end_block(self):
        self.done = []

    def connection(self, command):
        if command.connection not in self.connections:
            raise ValueError(f"connection {command.connection} was never opened")
        return self.connections[command.connection]

    def send_method(self, command):
        arguments = self.outward(command.method_arguments(command.verb))
        connection = self.connection(command)
        self.warn_if_closed(connection)
        if "delivery-tag" in arguments:
            shown = connection.channel(command.channel).deliveries.shown
            tag = arguments["delivery-tag"]
            arguments["delivery-tag"] = shown.get(tag, tag)
        if command.verb in ("connection.close", "channel.close"):
            arguments.setdefault("reply-code", 200)
        question = connection.send_method(command.channel, command.verb, arguments, command.given)
        if question and command.given:
            self.await_given(command, question)
        if command.verb == "queue.declare" and arguments.get("no-wait"):
            self.note_queue(command.connection, arguments, arguments["queue"])

    def await_given(self, command, question):
        """What the trace would have noted, had the answer been in it."""
        if not self.stage.pump.until(lambda: question.over, self.stage.limit):
            self.connection(command).anomaly(command.channel, f"no answer to {command.verb}")
        if question.answer is None:
            return
        arguments = question.answer.arguments
        if command.verb == "queue.declare":
            self.note_queue(command.connection, question.arguments, arguments["queue"])
        for value in arguments.values():
            self.names.inward_value(value)

    def warn_if_closed(self, connection):
        if connection.state == "closed":
            connection.anomaly(0, "the socket is closed already")

    def outward(self, arguments):
        return {name: self.names.outward_value(value) for name, value in arguments.items()}

    # Opening and closing.

    def new_connection(self, name):
        old = self.connections.get(name)
        if old and old.state != "closed":
            raise ValueError(f"connection {name} is open")
        address = self.stage.address
        connection = Connection(name, (address.host, address.port), self.emit)
        self.connections[name] = connection
        self.stage.pump.add(connection)
        return connection

    def do_socket(self, command):
        self.new_connection(command.connection)

    def do_connect(self, command):
        options = command.arguments(CONNECT_OPTIONS)
        connection = self.new_connection(command.connection)
        stage = self.stage
        shake(connection, stage.pump, stage.address, stage.limit, options, hidden=False)

    def do_open(self, command):
        """Opens connections and channels where opening is not the subject: nothing is traced."""
        for target in command.words():
            name, _, number = target.partition(".")
            connection = self.connections.get(name)
            if connection is None or connection.state == "closed":
                connection = self.new_connection(name)
                shake(connection, self.stage.pump, self.stage.address, self.stage.limit)
            if number:
                question = connection.send_method(int(number), "channel.open", {}, hidden=True)
                self.stage.pump.until(lambda: question.over, self.stage.limit)

    def do_close_socket(self, command):
        self.connection(command).close_socket(reset="reset" in command.words())

    def do_withhold(self, command):
        """From now on the scenario itself answers the broker's closes on this connection."""
        if command.words() != ["close-ok"]:
            raise ValueError("withhold what? only close-ok")
        self.connection(command).withhold = True

    # Content and frames.

    def do_basic_publish(self, command):
        arguments, properties, body, split = command.publish_arguments()
        connection = self.connection(command)
        self.warn_if_closed(connection)
        arguments, properties = self.outward(arguments), self.outward(properties)
        connection.publish(command.channel, arguments, properties, body, split)

    def do_frame(self, command):
        """A single frame: method NAME ..., header ..., body OCTETS, heartbeat, or NUMBER OCTETS."""
        connection = self.connection(command)
        connection.doubtful = True
        channel = connection.channel(command.channel)
        kind = command.next_word()
        if kind == "method":
            command.verb = command.next_word()
            arguments = self.outward(command.method_arguments(command.verb))
            payload = METHODS.by_name[command.verb].encode(arguments)
            if METHODS.by_name[command.verb].has_content:
                channel.sending, channel.half = "header", arguments
            else:
                channel.unsure = True
            connection.send_frame(Frame(METHOD, command.channel, payload))
        elif kind == "header":
            self.send_header(connection, channel, command)
        elif kind == "body":
            payload = command.octets()
            if isinstance(channel.sending, int):
                self.count_body(channel, len(payload))
            connection.send_frame(Frame(BODY, command.channel, payload))
        elif kind == "heartbeat":
            connection.send_frame(Frame(HEARTBEAT, command.channel, b""))
        else:
            channel.unsure = command.channel != 0
            connection.send_frame(Frame(int(kind), command.channel, command.octets()))

    def send_header(self, connection, channel, command):
        own = {"class-id": "short", "weight": "short", "size": "longlong"}
        found = command.arguments(PROPERTIES | own)
        properties = self.outward({name: found[name] for name in PROPERTIES if name in found})
        size = found.get("size", 0)
        if channel.sending == "header":
            channel.sending = size
            self.count_body(channel, 0)
        payload = encode_header(size, properties, found.get("class-id", 60), found.get("weight", 0))
        connection.send_frame(Frame(HEADER, command.channel, payload))

    def count_body(self, channel, size):
        channel.sending -= size
        if channel.sending <= 0:
            channel.sending = None
            if channel.state == "open":
                channel.publish(channel.half)

    def do_raw(self, command):
        connection = self.connection(command)
        data = command.octets()
        if connection.state == "handshake" and data[:4] == PROTOCOL_HEADER[:4] and len(data) == 8:
            wonder(connection, "connection.start").hidden = False
            connection.send(data, framed=False)
            return
        connection.doubtful = True
        for channel in connection.channels.values():
            channel.unsure = channel.number != 0
        connection.send(data)

    # Waiting.

    def do_wait(self, command):
        """Waits until the block's trace has as many lines, at most `within` seconds."""
        words = command.words()
        count = int(words[0])
        limit = float(words[2].rstrip("s")) if words[1:2] == ["within"] else self.stage.limit
        self.stage.pump.until(lambda: len(self.lines()) >= count, limit)

    def do_await_heartbeat(self, command):
        connection = self.connection(command)
        seen = self.heartbeats[connection.name]
        if self.stage.pump.until(lambda: self.heartbeats[connection.name] > seen, self.stage.limit):
            self.trace.events.append(connection.heartbeat())

    def do_restart(self, command):
        self.stage.restart()

    def do_kill(self, command):
        self.stage.kill()

    # Leaving.

    def leave(self):
        """Closes everything and removes from the broker what the scenario made."""
        pump = self.stage.pump
        for connection in self.connections.values():
            if connection.state == "open" and not connection.torn:
                connection.send_method(0, "connection.close", {"reply-code": 200}, hidden=True)
            elif connection.state != "closed":
                connection.close_socket()
        pump.until(lambda: all(c.state == "closed" for c in self.connections.values()), 2)
        for connection in self.connections.values():
            connection.close_socket()
        private = [self.names.outward(name) for name in sorted(self.names.private)]
        others = [name for name in self.declared if name not in self.names.private and
                  not name.startswith("amq.")]
        queues = [*private, *others, *self.generated]
        self.stage.control.remove(queues, [*private, *others])
