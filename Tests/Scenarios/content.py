"""Content headers: the property flags and the properties of a message."""

import struct

from methods import decode_field, encode_field
from table import Malformed, Reader

BASIC = 60

# In the order of their flags, the most significant bit first.
PROPERTIES = {
    "content-type": "shortstr", "content-encoding": "shortstr", "headers": "table",
    "delivery-mode": "octet", "priority": "octet", "correlation-id": "shortstr",
    "reply-to": "shortstr", "expiration": "shortstr", "message-id": "shortstr",
    "timestamp": "longlong", "type": "shortstr", "user-id": "shortstr", "app-id": "shortstr",
    "cluster-id": "shortstr",
}


def encode_header(size, properties, class_id=BASIC, weight=0):
    flags = 0
    data = b""
    for index, (name, type) in enumerate(PROPERTIES.items()):
        if name in properties:
            flags |= 1 << (15 - index)
            data += encode_field(type, properties[name])
    return struct.pack(">HHQH", class_id, weight, size, flags) + data


def decode_header(payload):
    """The body's size and the properties. The broker must write exactly what the flags say."""
    reader = Reader(payload)
    class_id, weight = reader.number(">H"), reader.number(">H")
    if class_id != BASIC or weight != 0:
        raise Malformed(f"content header of class {class_id} and weight {weight}")
    size = reader.number(">Q")
    flags = reader.number(">H")
    properties = {}
    for index, (name, type) in enumerate(PROPERTIES.items()):
        if flags >> (15 - index) & 1:
            properties[name] = decode_field(type, reader)
    if flags & 3 or reader.remaining:
        raise Malformed(f"content header with flags {flags:016b} and {reader.remaining} bytes more")
    return size, properties
