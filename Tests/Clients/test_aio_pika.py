"""aio-pika: confirms, exchanges, iterators, and its patterns for remote calls and shared work."""

import asyncio

import aio_pika
import aio_pika.exceptions
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.patterns import RPC, Master

WAIT_SECONDS = 15


def run(scenario):
    """Runs a coroutine to its end, within a limit of its own."""

    async def limited():
        return await asyncio.wait_for(scenario, WAIT_SECONDS)

    return asyncio.run(limited())


async def ready(channel, queue):
    declared = await channel.declare_queue(queue.name, passive=True)
    return declared.declaration_result.message_count


def test_publish_is_confirmed_and_got(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            confirmation = await channel.default_exchange.publish(
                Message(
                    b"body",
                    headers={"n": 1, "list": ["a", 2]},
                    delivery_mode=DeliveryMode.PERSISTENT,
                ),
                queue.name,
            )
            assert type(confirmation).__name__ == "Ack"
            message = await queue.get()
            assert message.body == b"body" and message.headers == {"n": 1, "list": ["a", 2]}
            await message.ack()
            assert await queue.get(fail=False) is None
            with pytest.raises(aio_pika.exceptions.QueueEmpty):
                await queue.get()

    run(scenario())


def test_unroutable_message_raises(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(on_return_raises=True)
            with pytest.raises(aio_pika.exceptions.PublishError):
                await channel.default_exchange.publish(Message(b"body"), "no such queue")

    run(scenario())


def test_many_publishes_at_once_are_all_confirmed(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(Message(b"%d" % number), queue.name)
                    for number in range(1000)
                )
            )
            assert await ready(channel, queue) == 1000

    run(scenario())


def test_iterator_over_a_queue(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=10)
            queue = await channel.declare_queue(exclusive=True)
            for number in range(100):
                await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
            seen = []
            async with queue.iterator() as messages:
                async for message in messages:
                    async with message.process():
                        seen.append(int(message.body))
                    if len(seen) == 100:
                        break
            assert seen == list(range(100))
            assert await ready(channel, queue) == 0

    run(scenario())


def test_failure_while_processing_requeues(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await channel.default_exchange.publish(Message(b"body"), queue.name)
            message = await queue.get()
            with pytest.raises(ZeroDivisionError):
                async with message.process(requeue=True):
                    raise ZeroDivisionError
            again = await queue.get()
            assert again.redelivered and again.body == b"body"
            await again.reject()

    run(scenario())


def test_exchanges_and_bindings(url, fresh):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            topic = await channel.declare_exchange(fresh("topic"), ExchangeType.TOPIC)
            fanout = await channel.declare_exchange(fresh("fanout"), ExchangeType.FANOUT)
            await fanout.bind(topic, "log.*")
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(fanout)
            await topic.publish(Message(b"yes"), "log.info")
            await topic.publish(Message(b"no"), "metric.info")
            message = await queue.get(no_ack=True)
            assert (message.body, message.routing_key) == (b"yes", "log.info")
            assert await queue.get(fail=False) is None
            await queue.unbind(fanout)
            await fanout.delete()
            await topic.delete()

    run(scenario())


def test_transaction(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(publisher_confirms=False)
            queue = await channel.declare_queue(exclusive=True)
            async with channel.transaction():
                await channel.default_exchange.publish(Message(b"kept"), queue.name)
            with pytest.raises(ZeroDivisionError):
                async with channel.transaction():
                    await channel.default_exchange.publish(Message(b"forgotten"), queue.name)
                    raise ZeroDivisionError
            assert (await queue.get(no_ack=True)).body == b"kept"
            assert await queue.get(fail=False) is None

    run(scenario())


def test_channel_error_closes_only_its_channel(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            broken, other = await connection.channel(), await connection.channel()
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await broken.get_queue("no such queue", ensure=True)
            with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):
                await other.declare_exchange("amq.topic", ExchangeType.DIRECT, durable=True)
            await (await connection.channel()).declare_queue(exclusive=True)

    run(scenario())


def test_remote_calls(url):
    async def multiply(*, x, y):
        return x * y

    async def fail():
        raise LookupError("nothing there")

    async def scenario():
        async with (
            await aio_pika.connect_robust(url) as server,
            await aio_pika.connect_robust(url) as client,
        ):
            serving = await RPC.create(await server.channel())
            await serving.register("test_multiply", multiply, auto_delete=True)
            await serving.register("test_fail", fail, auto_delete=True)
            calling = await RPC.create(await client.channel())
            results = await asyncio.gather(
                *(calling.proxy.test_multiply(x=n, y=n) for n in range(50))
            )
            assert results == [n * n for n in range(50)]
            with pytest.raises(LookupError):
                await calling.call("test_fail")
            # A method that nobody serves comes back at once, as a returned message.
            with pytest.raises(aio_pika.exceptions.MessageProcessError):
                await calling.call("test_missing")
            await calling.close()
            await serving.close()

    run(scenario())


def test_remote_call_that_expires(url, fresh):
    """A call that nobody serves in time comes back through a dead-letter exchange."""

    async def scenario():
        async with await aio_pika.connect_robust(url) as client:
            channel = await client.channel()
            calling = await RPC.create(channel)
            name = fresh("unserved")
            await channel.declare_queue(name, arguments={"x-dead-letter-exchange": RPC.DLX_NAME})
            with pytest.raises(asyncio.TimeoutError):
                await calling.call(name, expiration=1)
            await calling.close()

    run(scenario())


def test_shared_work(url, fresh):
    done = []

    async def scenario():
        async with await aio_pika.connect_robust(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            master = Master(channel)
            name = fresh("work")
            finished = asyncio.Event()

            async def work(*, number):
                done.append(number)
                if len(done) == 50:
                    finished.set()

            workers = [await master.create_worker(name, work, auto_delete=True) for _ in range(3)]
            for number in range(50):
                await master.create_task(name, {"number": number})
            await finished.wait()
            for worker in workers:
                await worker.close()

    run(scenario())
    assert sorted(done) == list(range(50))


def test_direct_reply_to(url):
    async def scenario():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            requests = await channel.declare_queue(exclusive=True)
            replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
            answer = asyncio.get_running_loop().create_future()

            async def receive(message):
                answer.set_result(message)

            await replies.consume(receive, no_ack=True)
            await channel.default_exchange.publish(
                Message(b"question", reply_to="amq.rabbitmq.reply-to"), requests.name
            )
            question = await requests.get(no_ack=True)
            await channel.default_exchange.publish(Message(b"answer"), question.reply_to)
            assert (await answer).body == b"answer"

    run(scenario())
