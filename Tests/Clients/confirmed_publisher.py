"""A publisher of persistent messages with many on the way; it knows which were confirmed."""

from collections.abc import Iterator

import pika

Message = tuple[str, str, bytes]  # exchange, routing key, body


class ConfirmedPublisher:
    """Publishes on one connection what an iterator gives, until it ends or the connection does.

    Messages are known by their index: the first that the iterator gives is 0.
    """

    def __init__(
        self, url: str, messages: Iterator[Message], *, window: int = 200, mandatory: bool = False
    ):
        self.confirmed: list[int] = []
        self.rejected: list[int] = []
        self.returned: list[bytes] = []
        self.sent = 0
        self._messages = messages
        self._window = window
        self._mandatory = mandatory
        self._ended = False
        # Delivery tag, counted by the broker from 1, to index; in the order of publishing.
        self._outstanding: dict[int, int] = {}
        self._failure: Exception | None = None
        self._channel = None
        self._connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=self._opened,
            on_open_error_callback=self._closed,
            on_close_callback=self._closed,
        )

    def run(self) -> Exception | None:
        """Returns None when all was confirmed or rejected, else what ended the connection."""
        self._connection.ioloop.start()
        self._connection.ioloop.close()
        return self._failure

    def _opened(self, connection) -> None:
        connection.channel(on_open_callback=self._prepare)

    def _prepare(self, channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(
            lambda _channel, _method, _properties, body: self.returned.append(body)
        )
        channel.confirm_delivery(self._settle, callback=lambda _ok: self._publish())

    def _publish(self) -> None:
        persistent = pika.BasicProperties(delivery_mode=2)
        while not self._ended and len(self._outstanding) < self._window:
            message = next(self._messages, None)
            if message is None:
                self._ended = True
                break
            exchange, key, body = message
            self._outstanding[self.sent + 1] = self.sent
            self.sent += 1
            self._channel.basic_publish(exchange, key, body, persistent, self._mandatory)
        if self._ended and not self._outstanding and self._connection.is_open:
            self._connection.close()

    def _settle(self, frame) -> None:
        method = frame.method
        assert method.delivery_tag in self._outstanding, f"confirm of tag {method.delivery_tag}"
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._outstanding if tag <= method.delivery_tag]
        settled = self.confirmed if isinstance(method, pika.spec.Basic.Ack) else self.rejected
        settled += [self._outstanding.pop(tag) for tag in tags]
        self._publish()

    def _channel_closed(self, _channel, reason) -> None:
        if self._connection.is_open:
            self._failure = reason
            self._connection.close()

    def _closed(self, connection, reason) -> None:
        if not isinstance(reason, pika.exceptions.ConnectionClosedByClient):
            self._failure = self._failure or reason
        connection.ioloop.stop()
