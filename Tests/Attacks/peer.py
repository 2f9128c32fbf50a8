"""A client of the broker that says exactly what it is told to."""

import socket
import struct

from frames import method, short, start_ok, table

PATIENCE_SECONDS = 60


class Refused(Exception):
    """The broker closed the channel or the connection, which may be the right answer."""


class Peer:
    """A connection that says exactly what it is told to."""

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()

    def open(self):
        capabilities = {"basic.nack": True, "consumer_cancel_notify": True}
        self.send(b"AMQP\0\0\x09\x01")
        self.expect(10, 10)
        self.send(start_ok(table({"capabilities": capabilities})))
        self.expect(10, 30)
        self.send(method(0, 10, 31, struct.pack(">HIH", 0, 131072, 0)))
        self.send(method(0, 10, 40, short("/") + b"\0\0"))
        self.expect(10, 41)
        return self.open_channel()

    def open_channel(self):
        self.send(method(1, 20, 10, b"\0"))
        self.expect(20, 11)
        return self

    def send(self, data):
        try:
            self.socket.sendall(data)
        except ConnectionError:
            self.expect(0, 0)

    def expect(self, class_id, method_id, count=1):
        """Waits for so many of a method; anything else but a close is passed over."""
        while count:
            found, _, payload = self.next_frame()
            if found != 1:
                continue
            ids = struct.unpack_from(">HH", payload)
            if ids == (class_id, method_id):
                count -= 1
            elif ids in ((10, 50), (20, 40)):
                (code,) = struct.unpack_from(">H", payload, 4)
                text = payload[7 : 7 + payload[6]].decode(errors="replace")
                raise Refused(f"{code} {text[:60]}")

    def next_frame(self):
        while True:
            if len(self.received) >= 7:
                kind, channel, size = struct.unpack_from(">BHI", self.received)
                if len(self.received) >= size + 8:
                    payload = bytes(self.received[7 : 7 + size])
                    del self.received[: size + 8]
                    return kind, channel, payload
            self.read()

    def read(self):
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            raise Refused("closed without a word")
        self.received += data

    def deliveries(self, count):
        """Takes so many deliveries of the same size, without looking at all but the first."""
        size = 0
        kinds = []
        while not kinds or kinds[-1] != 3:
            kind, _, payload = self.next_frame()
            if kind == 1 and struct.unpack_from(">HH", payload) != (60, 60):
                continue
            kinds.append(kind)
            size += len(payload) + 8
        left = size * (count - 1) - len(self.received)
        self.received.clear()
        while left > 0:
            self.read()
            left -= len(self.received)
            self.received.clear()

    def settle(self):
        """All that was said before has been done."""
        self.send(method(1, 60, 10, b"\0" * 7))
        self.expect(60, 11)

    def end(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
