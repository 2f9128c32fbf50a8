"""A connection: one socket, the frames that go out, and the events that arriving frames make."""

import select
import socket
import struct

from channel import Channel, Question
from content import decode_header, encode_header
from event import Event
from frame import BODY, END, HEADER, HEARTBEAT, METHOD, OVERHEAD, Frame, Splitter
from methods import METHODS
from table import Malformed, Reader

SEND_LIMIT_SECONDS = 20
# What is used where a frame-max of 0 was negotiated.
UNLIMITED_FRAME = 131072


class Connection:
    """`state` is handshake, open, closing (close or its answer is out), closed (no socket)."""

    def __init__(self, name, address, emit):
        self.name = name
        self.emit = emit
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.state = "handshake"
        self.channels = {}
        # The scenario answers closes itself.
        self.withhold = False
        # Something went out that nothing answers, on a channel of which nothing can be asked.
        self.doubtful = False
        # The broker said connection.close.
        self.was_told = False
        # The close handshake is over and our half of the socket shut, the broker's half is not.
        self.finished = False
        self.channel_max = 2047
        self.frame_max = 4096
        self.start = None
        self.incoming = Splitter()
        self.outgoing = Splitter()

    # Sending.

    def channel(self, number):
        if number not in self.channels:
            self.channels[number] = Channel(number)
            if number == 0:
                self.channels[number].reset("open")
        return self.channels[number]

    @property
    def torn(self):
        """A piece of a frame went out, so no frame of the runner's own may follow."""
        return bool(self.outgoing.pending)

    def send(self, data, framed=True):
        if framed:
            self.outgoing.push(data)
        view = memoryview(data)
        while view and self.state != "closed":
            try:
                view = view[self.socket.send(view):]
            except BlockingIOError:
                ready = select.select([self.socket], [self.socket], [], SEND_LIMIT_SECONDS)
                if ready[0]:
                    self.receive()
                elif not ready[1]:
                    self.anomaly(0, "the broker does not read")
                    return
            except OSError:
                # The peer is gone; what it said before is read, and then the end of the socket.
                return

    def send_frame(self, frame):
        self.send(frame.encode())

    def send_method(self, number, name, arguments, hidden=False):
        """Sends a method and returns the question it asks, or None."""
        channel = self.channel(number)
        replies = METHODS.replies(name, arguments)
        question = None
        silent = channel.state == "refused" or self.state == "closed"
        if replies and not silent:
            question = Question(replies, hidden, name, arguments)
            channel.ask(question)
        elif not hidden:
            self.doubtful = True
        self.note_sent(channel, name, arguments)
        self.send_frame(Frame(METHOD, number, METHODS.by_name[name].encode(arguments)))
        if name == "connection.close-ok":
            self.finish()
        return question

    def note_sent(self, channel, name, arguments):
        if name == "channel.open" and channel.state == "closed":
            channel.state = "opening"
        elif name == "channel.close" and channel.state == "open":
            channel.state = "closing"
        elif name == "channel.close-ok" and channel.state == "refused":
            channel.reset("closed")
        elif name == "connection.tune-ok":
            self.channel_max = arguments.get("channel-max", 0) or 65535
            self.frame_max = arguments.get("frame-max", 0) or UNLIMITED_FRAME
        elif name in ("connection.close", "connection.close-ok"):
            self.state = "closing"
        elif name == "confirm.select" and arguments.get("no-wait"):
            channel.confirming = True

    def publish(self, number, arguments, properties, body, split):
        """A whole message, its body cut at `split` bytes or at the largest frame."""
        channel = self.channel(number)
        step = split or self.frame_max - OVERHEAD
        frames = [Frame(METHOD, number, METHODS.by_name["basic.publish"].encode(arguments))]
        frames.append(Frame(HEADER, number, encode_header(len(body), properties)))
        for start in range(0, len(body), step):
            frames.append(Frame(BODY, number, body[start:start + step]))
        if channel.state == "open":
            channel.publish(arguments)
        self.doubtful = True
        self.send(b"".join(frame.encode() for frame in frames))

    def finish(self):
        if self.state != "closed":
            self.finished = True
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The broker was faster; reading shows it.

    def close_socket(self, reset=False):
        if self.state == "closed":
            return
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.end()

    def heartbeat(self):
        return Event(self.name, 0, "heartbeat")

    def end(self):
        self.state = "closed"
        for channel in self.channels.values():
            channel.reset("closed")

    # Receiving.

    def receive(self):
        """Reads what is there. Returns whether the socket is still open."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            told = self.was_told or self.state == "closing"
            self.socket.close()
            self.end()
            if not told:
                self.emit(Event(self.name, 0, "closed"))
            return False
        if self.state == "handshake" and not self.incoming.pending and data[:4] == b"AMQP":
            version = ".".join(str(octet) for octet in data[4:8])
            self.emit(Event(self.name, 0, "version", text=version))
            data = data[8:]
        for frame in self.incoming.push(data):
            self.take_safely(frame)
        return True

    def take_safely(self, frame):
        try:
            self.take(frame)
        except (Malformed, struct.error) as error:
            self.anomaly(frame.channel, f"malformed frame of type {frame.type}: {error}")

    def anomaly(self, channel, text):
        self.emit(Event(self.name, channel, "anomaly", text=text))

    def take(self, frame):
        channel = self.channel(frame.channel)
        if frame.end != END:
            raise Malformed(f"frame end {frame.end:#x}")
        if len(frame.payload) + OVERHEAD > max(self.frame_max, 4096):
            self.anomaly(frame.channel, f"frame of {len(frame.payload)} bytes of payload")
        if frame.type == HEARTBEAT:
            if frame.channel or frame.payload:
                raise Malformed("heartbeat with a channel or a payload")
            self.emit(self.heartbeat())
        elif frame.type == METHOD:
            self.take_method(channel, Reader(frame.payload))
        elif frame.type in (HEADER, BODY) and channel.assembling:
            self.take_content(channel, frame)
        else:
            raise Malformed("not expected now")

    def take_method(self, channel, reader):
        if channel.assembling:
            channel.assembling = None
            raise Malformed("a method in the middle of content")
        number = reader.number(">H"), reader.number(">H")
        method = METHODS.by_id.get(number)
        if method is None or method.sender == "client":
            raise Malformed("method {}.{} from the broker".format(*number))
        arguments = method.decode(reader)
        if reader.remaining:
            raise Malformed(f"{reader.remaining} bytes behind {method.name}")
        if channel.state == "closed" or (channel.state == "opening" and
                                         method.name not in ("channel.open-ok", "channel.close")):
            self.anomaly(channel.number, f"{method.name} on a channel that is not open")
        if method.has_content:
            channel.assembling = [method.name, arguments, None, {}, b""]
        else:
            event = Event(self.name, channel.number, "method", method.name, arguments)
            self.deliver(channel, event)

    def take_content(self, channel, frame):
        content = channel.assembling
        if frame.type == HEADER:
            if content[2] is not None:
                raise Malformed("a second header")
            content[2], content[3] = decode_header(frame.payload)
        elif content[2] is None:
            raise Malformed("a body before its header")
        else:
            content[4] += frame.payload
        name, arguments, size, properties, body = content
        if len(body) < size:
            return
        channel.assembling = None
        if len(body) > size:
            raise Malformed(f"a body of {len(body)} bytes, announced as {size}")
        self.deliver(channel, Event(self.name, channel.number, "method", name, arguments,
                                    properties, body))

    def deliver(self, channel, event):
        """Notes a whole method and passes it on, unless it answers a hidden question."""
        event.deliveries = channel.deliveries
        event.question = channel.answer(event.name, event)
        self.note_received(channel, event)
        if not channel.hidden and not (event.question and event.question.hidden):
            self.emit(event)

    def note_received(self, channel, event):
        name, arguments = event.name, event.arguments
        if name == "connection.start":
            self.start = event
        elif name == "connection.open-ok":
            self.state = "open"
        elif name == "connection.close":
            self.was_told = True
            for other in self.channels.values():
                other.reset("closed")
            if self.withhold:
                self.state = "closing"
            else:
                self.send_method(0, "connection.close-ok", {})
        elif name == "connection.close-ok":
            self.finish()
        elif name == "channel.open-ok":
            channel.state = "open"
        elif name == "channel.close-ok" and channel.state != "refused":
            channel.reset("closed")
        elif name == "channel.close":
            channel.reset("refused")
            if not self.withhold:
                self.send_method(channel.number, "channel.close-ok", {})
        elif name == "confirm.select-ok":
            channel.confirming = True
        elif name == "basic.return" and channel.returned(arguments):
            self.anomaly(channel.number, "basic.return behind its confirm")
        elif name in ("basic.ack", "basic.nack"):
            event.kind = "confirm"
            tag = arguments["delivery-tag"]
            event.tags = frozenset(channel.confirm(tag, arguments["multiple"]))
            if not event.tags:
                self.anomaly(channel.number, f"{name} of {tag} settles nothing")
        elif name in ("basic.deliver", "basic.get-ok"):
            self.check_tag(channel, arguments["delivery-tag"])

    def check_tag(self, channel, tag):
        last = channel.deliveries.last_actual
        if tag != last + 1:
            self.anomaly(channel.number, f"delivery tag {tag} behind {last}")
        channel.deliveries.last_actual = tag
