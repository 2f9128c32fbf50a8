"""The handshake of a connection, done for the scenario where it is not the subject."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from channel import Question
from frame import PROTOCOL_HEADER
from table import Value, entries, to_text

CAPABILITIES = ("publisher_confirms", "exchange_exchange_bindings", "basic.nack",
                "consumer_cancel_notify", "connection.blocked", "authentication_failure_close")
CLIENT_PROPERTIES = [
    ("product", Value("S", "scenario")),
    ("capabilities", Value("F", [(name, Value("t", True)) for name in CAPABILITIES])),
]


@dataclass
class Address:
    """Where the broker is and who asks."""

    host: str
    port: int
    user: str
    password: str
    vhost: str

    @classmethod
    def parse(cls, url):
        parts = urlsplit(url)
        if parts.scheme != "amqp" or not parts.hostname:
            raise ValueError(f"not an amqp:// URL: {url}")
        return cls(parts.hostname, parts.port or 5672, unquote(parts.username or "guest"),
                   unquote(parts.password or "guest"), unquote(parts.path[1:]) or "/")


def shake(connection, pump, address, limit, options=None, hidden=True):
    """Brings the connection to `open`. Where the broker refuses, what it sends is in the trace."""
    options = options or {}
    start = wonder(connection, "connection.start")
    connection.send(PROTOCOL_HEADER, framed=False)
    if not (pump.until(lambda: start.over, limit) and start.answer):
        return
    tune = wonder(connection, "connection.tune")
    connection.send_method(0, "connection.start-ok", start_ok(address, options), hidden=True)
    if not (pump.until(lambda: tune.over, limit) and tune.answer):
        return
    offer = tune.answer.arguments
    connection.send_method(0, "connection.tune-ok", {
        "channel-max": int(options.get("channel-max", offer["channel-max"])),
        "frame-max": int(options.get("frame-max", offer["frame-max"])),
        "heartbeat": int(options.get("heartbeat", 0)),
    })
    vhost = options.get("vhost", address.vhost)
    opened = connection.send_method(0, "connection.open", {"virtual-host": vhost}, hidden=hidden)
    pump.until(lambda: opened.over, limit)
    connection.doubtful = False


def wonder(connection, name):
    """A hidden question that no request of ours asks."""
    question = Question(frozenset({name}), True, name, {})
    connection.channel(0).ask(question)
    return question


def start_ok(address, options):
    user = options.get("user", address.user)
    password = options.get("password", address.password)
    mechanism = options.get("mechanism", "PLAIN")
    response = f"\0{user}\0{password}"
    if mechanism == "AMQPLAIN":
        login = [("LOGIN", Value("S", user)), ("PASSWORD", Value("S", password))]
        response = to_text(entries(login))
    return {
        "client-properties": options.get("client-properties", CLIENT_PROPERTIES),
        "mechanism": mechanism,
        "response": options.get("response", response),
        "locale": "en_US",
    }
