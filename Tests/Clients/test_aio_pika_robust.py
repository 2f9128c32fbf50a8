"""aio-pika's robust connections: they come back after the broker was killed and started again."""

import asyncio

import aio_pika
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message

WAIT_SECONDS = 45


def run(scenario):
    async def limited():
        return await asyncio.wait_for(scenario, WAIT_SECONDS)

    return asyncio.run(limited())


async def restart(broker):
    """Kills the broker and starts it again, without stopping the loop that must notice."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, broker.kill)
    await loop.run_in_executor(None, broker.start)


def test_consumer_goes_on_after_a_restart(own_broker):
    async def scenario():
        connection = await aio_pika.connect_robust(own_broker.url, reconnect_interval=0.1)
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("durable", durable=True)
            exchange = await channel.declare_exchange("topic", ExchangeType.TOPIC, durable=True)
            await queue.bind(exchange, "a.#")
            received = asyncio.Queue()
            await queue.consume(received.put, no_ack=True)
            persistent = {"delivery_mode": DeliveryMode.PERSISTENT}
            await exchange.publish(Message(b"before", **persistent), "a.b")
            assert (await received.get()).body == b"before"
            reconnected = asyncio.Event()
            connection.reconnect_callbacks.add(lambda *_: reconnected.set())
            for round_number in range(3):
                reconnected.clear()
                await restart(own_broker)
                await reconnected.wait()
                body = b"after restart %d" % round_number
                await exchange.publish(Message(body, **persistent), "a.b")
                # What came before the crash may come again: nobody has promised to remember that.
                while (await received.get()).body != body:
                    pass

    run(scenario())


def test_exclusive_and_server_named_queues_are_declared_again(own_broker):
    async def scenario():
        connection = await aio_pika.connect_robust(own_broker.url, reconnect_interval=0.1)
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind("amq.fanout")
            received = asyncio.Queue()
            await queue.consume(received.put, no_ack=True)
            reconnected = asyncio.Event()
            connection.reconnect_callbacks.add(lambda *_: reconnected.set())
            await restart(own_broker)
            await reconnected.wait()
            fanout = await channel.get_exchange("amq.fanout", ensure=False)
            await fanout.publish(Message(b"after"), "")
            assert (await received.get()).body == b"after"

    run(scenario())


def test_messages_confirmed_across_restarts_are_all_there(own_broker):
    """A publisher that repeats what failed loses nothing; what it could not know may double."""

    async def scenario():
        connection = await aio_pika.connect_robust(own_broker.url, reconnect_interval=0.1)
        async with connection:
            channel = await connection.channel()
            await channel.declare_queue("durable", durable=True)
            restarts = asyncio.create_task(restart(own_broker))
            for number in range(300):
                message = Message(b"%d" % number, delivery_mode=DeliveryMode.PERSISTENT)
                while True:
                    try:
                        await channel.default_exchange.publish(message, "durable", timeout=5)
                        break
                    except (
                        aio_pika.exceptions.AMQPError,
                        ConnectionError,
                        TimeoutError,
                        RuntimeError,
                    ):
                        await connection.connected.wait()
                        await asyncio.sleep(0)
            await restarts
            async with await aio_pika.connect(own_broker.url) as checker:
                queue = await (await checker.channel()).declare_queue(
                    "durable", durable=True, passive=True
                )
                bodies = set()
                while message := await queue.get(fail=False, no_ack=True):
                    bodies.add(int(message.body))
            assert bodies == set(range(300))

    run(scenario())


@pytest.mark.deadline(90)
def test_broker_that_stops_in_order_closes_its_connections(own_broker):
    async def scenario():
        connection = await aio_pika.connect(own_broker.url)
        closed = asyncio.Event()
        connection.close_callbacks.add(lambda *_: closed.set())
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, own_broker.stop) == 0
        await closed.wait()
        await loop.run_in_executor(None, own_broker.start)
        async with await aio_pika.connect(own_broker.url):
            pass

    run(scenario())
