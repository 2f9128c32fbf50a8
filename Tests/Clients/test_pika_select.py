"""pika's callback style: one thread, one loop, everything asynchronous."""

import pika

DEADLINE_SECONDS = 20


class Conversation:
    """A SelectConnection that runs until `done` is called, or fails."""

    def __init__(self, url, on_channel):
        self.on_channel = on_channel
        self.finished = False
        self.failure = None
        self.connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=self._opened,
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
        )

    def run(self):
        self.connection.ioloop.call_later(DEADLINE_SECONDS, self._expire)
        self.connection.ioloop.start()
        assert self.finished, self.failure

    def done(self):
        self.finished = True
        self.connection.close()

    def _opened(self, connection):
        connection.channel(on_open_callback=self.on_channel)

    def _expire(self):
        self.failure = f"not done within {DEADLINE_SECONDS} s"
        self.connection.ioloop.stop()

    def _ended(self, connection, reason):
        self.failure = reason
        connection.ioloop.stop()


def test_consumer_and_publisher_on_one_loop(url):
    received = []

    def opened(channel):
        channel.queue_declare("", exclusive=True, callback=lambda frame: declared(channel, frame))

    def declared(channel, frame):
        queue = frame.method.queue
        channel.basic_qos(
            prefetch_count=10,
            callback=lambda _: channel.basic_consume(
                queue, received_one, callback=lambda _: publish(channel, queue)
            ),
        )

    def publish(channel, queue):
        for number in range(500):
            channel.basic_publish("", queue, b"%d" % number)

    def received_one(channel, method, _properties, body):
        received.append(int(body))
        channel.basic_ack(method.delivery_tag)
        if len(received) == 500:
            conversation.done()

    conversation = Conversation(url, opened)
    conversation.run()
    assert received == list(range(500))


def test_replies_come_in_the_order_of_the_requests(url):
    """Many requests are sent before the first reply is awaited, as callback programs do."""
    replies = []

    def opened(channel):
        for number in range(50):
            channel.connection.channel(on_open_callback=lambda each, n=number: declare(each, n))

    def declare(channel, number):
        channel.exchange_declare("amq.topic", passive=True, callback=lambda _: channel.close())
        channel.add_on_close_callback(lambda *_: finished(number))

    def finished(number):
        replies.append(number)
        if len(replies) == 50:
            conversation.done()

    conversation = Conversation(url, opened)
    conversation.run()
    assert sorted(replies) == list(range(50))


def test_channel_error_reaches_its_callback(url, fresh):
    missing = fresh()
    reasons = []

    def opened(channel):
        channel.add_on_close_callback(closed)
        channel.basic_publish(missing, "", b"body")

    def closed(_channel, reason):
        reasons.append(reason.reply_code)
        conversation.done()

    conversation = Conversation(url, opened)
    conversation.run()
    assert reasons == [404]


def test_requests_without_waiting_for_replies(url, fresh):
    """With nowait the broker answers nothing, and still does everything in order."""
    name = fresh("queue")

    def opened(channel):
        channel.queue_declare(name, auto_delete=True)
        channel.queue_bind(name, "amq.topic", f"{name}.*")
        channel.basic_publish("amq.topic", f"{name}.key", b"body")
        channel.basic_consume(name, received, auto_ack=True)

    def received(_channel, method, _properties, body):
        assert (method.routing_key, body) == (f"{name}.key", b"body")
        conversation.done()

    conversation = Conversation(url, opened)
    conversation.run()
