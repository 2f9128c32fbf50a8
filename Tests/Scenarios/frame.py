"""Frames, and the splitter that finds them in a stream: in what arrives, and in what is sent.

    +------+---------+----------+---------+------+
    | type | channel | size     | payload | 0xCE |
    | 1    | 2       | 4        | size    | 1    |
    +------+---------+----------+---------+------+
"""

import struct
from dataclasses import dataclass

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE
OVERHEAD = 8
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


@dataclass(frozen=True)
class Frame:
    type: int
    channel: int
    payload: bytes
    end: int = END

    def encode(self):
        head = struct.pack(">BHI", self.type, self.channel, len(self.payload))
        return head + self.payload + bytes([self.end])


class Splitter:
    """Cuts a stream of bytes into frames and keeps the piece that is not whole yet."""

    def __init__(self):
        self.pending = bytearray()

    def push(self, data):
        self.pending += data
        frames = []
        while len(self.pending) >= 7:
            type, channel, size = struct.unpack_from(">BHI", self.pending)
            if len(self.pending) < size + OVERHEAD:
                break
            payload = bytes(self.pending[7:7 + size])
            frames.append(Frame(type, channel, payload, self.pending[7 + size]))
            del self.pending[:size + OVERHEAD]
        return frames
