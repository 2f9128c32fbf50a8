"""AMQP frames, made by hand so that they may be wrong, and quickly."""

import struct


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel, class_id, method_id, arguments=b""):
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def short(text):
    data = text.encode()
    return bytes([len(data)]) + data


def long(data):
    return struct.pack(">I", len(data)) + data


def value(thing):
    if isinstance(thing, bool):
        return b"t" + bytes([thing])
    if isinstance(thing, int):
        return b"I" + struct.pack(">i", thing)
    if isinstance(thing, dict):
        return b"F" + table(thing)
    if isinstance(thing, list):
        return b"A" + long(b"".join(map(value, thing)))
    return b"S" + long(thing.encode())


def table(fields):
    return long(b"".join(short(name) + value(field) for name, field in fields.items()))


def publish(exchange, key, body=b"", headers=None, persistent=False, channel=1):
    flags = (0x2000 if headers is not None else 0) | (0x1000 if persistent else 0)
    if isinstance(headers, dict):
        headers = table(headers)
    properties = (headers or b"") + (b"\x02" if persistent else b"")
    return (
        method(channel, 60, 40, b"\0\0" + short(exchange) + short(key) + b"\0")
        + frame(2, channel, struct.pack(">HHQH", 60, 0, len(body), flags) + properties)
        + (frame(3, channel, body) if body else b"")
    )


def declare_queue(name, durable=False, arguments=b"\0\0\0\0"):
    return method(1, 50, 10, b"\0\0" + short(name) + bytes([16 | 2 * durable]) + arguments)


def declare_exchange(name, kind, durable=False, arguments=b"\0\0\0\0"):
    bits = bytes([16 | 2 * durable])
    return method(1, 40, 10, b"\0\0" + short(name) + short(kind) + bits + arguments)


def bind_queue(queue, exchange, key="", arguments=b"\0\0\0\0"):
    names = short(queue) + short(exchange) + short(key)
    return method(1, 50, 20, b"\0\0" + names + b"\1" + arguments)


def bind_exchange(destination, source, key="", arguments=b"\0\0\0\0"):
    names = short(destination) + short(source) + short(key)
    return method(1, 40, 30, b"\0\0" + names + b"\1" + arguments)


def consume(queue, tag, no_ack=False, no_wait=False, arguments=b"\0\0\0\0"):
    bits = bytes([2 * no_ack | 8 * no_wait])
    return method(1, 60, 20, b"\0\0" + short(queue) + short(tag) + bits + arguments)


def start_ok(properties=b"\0\0\0\0"):
    login = short("PLAIN") + long(b"\0guest\0guest") + short("en_US")
    return method(0, 10, 11, properties + login)
