"""A client that says exactly what it is told to, byte for byte, and may be rude about it."""

import contextlib
import socket
import struct
import time
from urllib.parse import urlsplit

from pika import BasicProperties, frame, spec

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
READ_SECONDS = 20


class RawPeer:
    """A socket to the broker, with AMQP frames for those who want them."""

    def __init__(self, url: str, receive_buffer: int | None = None):
        parts = urlsplit(url)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(READ_SECONDS)
        self.socket.connect((parts.hostname, parts.port))
        host, port = self.socket.getsockname()
        # How the broker's log calls this peer.
        self.name = f"{host}:{port} -> "
        self._received = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    # Saying

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say(self, *methods, channel: int = 0) -> None:
        """Sends methods without waiting for anything."""
        self.send(b"".join(encode(method, channel) for method in methods))

    def say_while_heard(self, data: bytes, seconds: float) -> int:
        """Sends the bytes until the broker has taken nothing for a while; returns how many went."""
        self.socket.settimeout(seconds)
        sent = 0
        try:
            while sent < len(data):
                sent += self.socket.send(data[sent : sent + (1 << 20)])
        except TimeoutError:
            pass
        self.socket.settimeout(READ_SECONDS)
        return sent

    def reset(self) -> None:
        """Vanishes: with a linger of 0 the close is a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # Hearing

    def hear(self, seconds: float = READ_SECONDS):
        """The next frame; EOFError at the end, TimeoutError when it does not come."""
        deadline = time.monotonic() + seconds
        while True:
            used, found = frame.decode_frame(self._received)
            if used:
                del self._received[:used]
                return found
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the broker closed the connection")
            self._received += data

    def expect(self, kind, seconds: float = READ_SECONDS):
        """The next method of that kind; other frames are skipped, a close is a failure."""
        deadline = time.monotonic() + seconds
        while True:
            method = getattr(self.hear(deadline - time.monotonic()), "method", None)
            if isinstance(method, kind):
                return method
            assert not isinstance(method, (spec.Connection.Close, spec.Channel.Close)), method

    def ask(self, method, kind, channel: int = 0):
        self.say(method, channel=channel)
        return self.expect(kind)

    def expect_close(self, code: int, *, hangs_up=False) -> str:
        """The broker closes the connection with that code; returns the text.

        Who left a frame unfinished hangs up: the broker cannot tell its close-ok from the rest.
        """
        close = self.expect(spec.Connection.Close)
        assert close.reply_code == code, close
        if hangs_up:
            self.socket.shutdown(socket.SHUT_WR)
        else:
            self.say(spec.Connection.CloseOk())
        self.expect_end()
        return close.reply_text

    def expect_channel_close(self, channel: int = 1):
        """The broker closes the channel; returns what it says."""
        close = self.hear().method
        assert isinstance(close, spec.Channel.Close), close
        self.say(spec.Channel.CloseOk(), channel=channel)
        return close

    def expect_end(self, seconds: float = READ_SECONDS) -> bytes:
        """The broker closes the socket; returns what it had said before."""
        self.socket.settimeout(seconds)
        said = bytes(self._received)
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(1 << 16):
                said += data
        return said

    # The handshake

    def open(self, *, heartbeat: int = 0, frame_max: int = 131072, blocked: bool = True):
        """Opens the virtual host and channel 1."""
        self.send(PROTOCOL_HEADER)
        self.expect(spec.Connection.Start)
        properties = {"capabilities": {"connection.blocked": blocked}}
        login = spec.Connection.StartOk(properties, "PLAIN", "\0guest\0guest", "en_US")
        self.ask(login, spec.Connection.Tune)
        tune = spec.Connection.TuneOk(2047, frame_max, heartbeat)
        self.say(tune, spec.Connection.Open("/"))
        self.expect(spec.Connection.OpenOk)
        self.ask(spec.Channel.Open(), spec.Channel.OpenOk, channel=1)
        return self


def encode(method, channel: int = 0) -> bytes:
    return frame.Method(channel, method).marshal()


def content(channel: int, queue: str, size: int, *pieces: bytes, persistent=False) -> bytes:
    """A publish that announces `size` bytes and has only these pieces of them, each in a frame."""
    properties = BasicProperties(delivery_mode=2 if persistent else 1)
    return b"".join(
        (
            encode(spec.Basic.Publish(exchange="", routing_key=queue), channel),
            frame.Header(channel, size, properties).marshal(),
            *(frame.Body(channel, piece).marshal() for piece in pieces),
        )
    )
