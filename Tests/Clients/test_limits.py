"""Limits that options set, alarms, and how the broker starts and stops when something is wrong."""

import contextlib
import signal
import socket
import subprocess
import threading
import time

import pika
import pytest
from pika import spec

from broker import binary, environment, free_port
from raw_peer import PROTOCOL_HEADER, RawPeer, content
from watched_broker import MEBI, Bystander, WatchedBroker, eventually, serving

STOP_SECONDS = 3
# Transient messages do not move to the disk.
STAYING = ("--transient-memory", "1TiB")


def declare(peer, queue, **options):
    return peer.ask(spec.Queue.Declare(queue=queue, **options), spec.Queue.DeclareOk, channel=1)


# Limits


def test_connection_above_the_limit_is_refused_readably(tmp_path):
    with serving(tmp_path, "--connections-max", "5") as broker, Bystander(broker):
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(RawPeer(broker.url).open()) for _ in range(4)]
            with pytest.raises(pika.exceptions.ProbableAccessDeniedError) as raised:
                pika.BlockingConnection(pika.URLParameters(broker.url))
            assert "(530) 'NOT_ALLOWED" in str(raised.value)
            assert "connection limit (5) is reached" in str(raised.value)
            broker.expect_line("closed by the broker", "530", "connection limit (5)")
            peers[0].reset()
            broker.expect_line(peers[0].name, "closed")
            pika.BlockingConnection(pika.URLParameters(broker.url)).close()


def test_crowd_above_the_limit_does_not_keep_anybody_out_for_long(tmp_path):
    options = (
        *("--connections-max", "5", "--handshake-timeout", "500ms"),
        *("--log-level", "debug"),
    )
    with serving(tmp_path, *options) as broker, Bystander(broker):
        before = broker.descriptors()
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(RawPeer(broker.url)) for _ in range(300)]
            broker.expect_line("is turned away", f"{crowd[-1].name.removesuffix(' -> ')}")
            assert broker.descriptors() < before + 100
            for peer in crowd:
                peer.expect_end()
        pika.BlockingConnection(pika.URLParameters(broker.url)).close()


def test_broker_without_descriptors_goes_on_with_those_who_are_there(tmp_path):
    if not subprocess.run(["which", "prlimit"], capture_output=True).stdout:
        pytest.skip("prlimit is not installed")
    with serving(tmp_path) as probe:
        few = probe.descriptors() + 64 + 20
    broker = WatchedBroker(tmp_path)
    broker.command = ["prlimit", f"--nofile={few}:{few}", *broker.command]
    try:
        broker.start()
        with Bystander(broker), contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(RawPeer(broker.url)) for _ in range(200)]
            broker.expect_line("is turned away")
            for peer in crowd[150:]:
                peer.expect_end()
        eventually(lambda: broker.descriptors() < few - 64, "end of the crowd")
        pika.BlockingConnection(pika.URLParameters(broker.url)).close()
        assert broker.stop() == 0
    finally:
        broker.end()


def test_limits_of_queues_and_consumers_are_told(tmp_path):
    with serving(tmp_path, "--queues-max", "3", "--consumers-max", "2") as broker:
        with RawPeer(broker.url).open() as peer:
            for name in "abc":
                declare(peer, name)
            peer.say(spec.Queue.Declare(queue="d"), channel=1)
            close = peer.hear().method
            assert close.reply_code == 406 and "(3) is reached" in close.reply_text
            peer.say(spec.Channel.CloseOk(), spec.Channel.Open(), channel=1)
            peer.expect(spec.Channel.OpenOk)
            for _ in range(2):
                peer.ask(spec.Basic.Consume(queue="a"), spec.Basic.ConsumeOk, channel=1)
            peer.say(spec.Basic.Consume(queue="a"), channel=1)
            assert "limit (2)" in peer.expect_close(530)


# Alarms


def test_publisher_is_blocked_while_memory_is_full(tmp_path):
    """Consumers go on, and what they take makes room: the publisher is told so and goes on."""
    with serving(tmp_path, "--memory-limit", "16MiB", *STAYING) as broker:
        before = broker.resident()
        with RawPeer(broker.url).open() as consumer, RawPeer(broker.url).open() as publisher:
            declare(consumer, "full")
            declare(consumer, "idle")
            # Transient messages that stay: nothing but their consumption frees memory.
            messages = content(1, "full", 100_000, bytes(100_000)) * 600
            thread = threading.Thread(target=publisher.socket.sendall, args=[messages], daemon=True)
            thread.start()
            assert publisher.expect(spec.Connection.Blocked).reason == "low on memory"
            broker.expect_line(publisher.name, "is blocked: low on memory")
            broker.expect_line("publishers are blocked: low on memory")
            assert broker.resident_peak() < before + 48 * MEBI
            assert thread.is_alive()
            # Those who only consume or declare are served meanwhile.
            consumer.ask(spec.Basic.Get(queue="idle"), spec.Basic.GetEmpty, channel=1)
            consumer.say(spec.Basic.Consume(queue="full", no_ack=True), channel=1)
            for _ in range(600):
                consumer.expect(spec.Basic.Deliver)
            thread.join(10)
            assert not thread.is_alive()
            publisher.expect(spec.Connection.Unblocked)
            broker.expect_line("publishers are no longer blocked")
            declare(publisher, "full", passive=True)
            assert broker.resident_peak() < before + 48 * MEBI


def test_transient_messages_move_to_the_disk_instead(tmp_path):
    """Ten times the memory limit waits, nobody is blocked, and all comes back in order."""
    with serving(tmp_path, "--memory-limit", "16MiB") as broker:
        before = broker.resident()
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.queue_declare("deep")
            bodies = [number.to_bytes(4, "big") * 25_000 for number in range(1600)]
            for body in bodies:
                channel.basic_publish("", "deep", body)
            assert channel.queue_declare("deep", passive=True).method.message_count == 1600
            assert broker.resident_peak() < before + 64 * MEBI
            taken = channel.consume("deep", auto_ack=True, inactivity_timeout=10)
            assert all(body == got for body, (_, _, got) in zip(bodies, taken))
            channel.cancel()
            assert channel.queue_declare("deep", passive=True).method.message_count == 0
        assert not broker.lines("blocked")


def test_many_publishers_are_blocked_and_all_go_on(tmp_path):
    """Each counts its confirms: nothing is lost between blocked and unblocked."""
    with serving(tmp_path, "--memory-limit", "8MiB", *STAYING) as broker:
        with contextlib.ExitStack() as stack:
            consumer = stack.enter_context(RawPeer(broker.url).open())
            declare(consumer, "full")
            peers = [stack.enter_context(RawPeer(broker.url).open()) for _ in range(10)]
            messages = content(1, "full", 50_000, bytes(50_000)) * 100
            threads = []
            for peer in peers:
                peer.ask(spec.Confirm.Select(), spec.Confirm.SelectOk, channel=1)
                threads.append(threading.Thread(target=peer.send, args=[messages], daemon=True))
                threads[-1].start()
            broker.expect_line("is blocked: low on memory")
            consumer.say(spec.Basic.Consume(queue="full", no_ack=True), channel=1)
            for _ in range(1000):
                consumer.expect(spec.Basic.Deliver)
            for peer, thread in zip(peers, threads):
                thread.join(10)
                assert not thread.is_alive()
                while peer.expect(spec.Basic.Ack).delivery_tag < 100:
                    pass


def test_blocked_publisher_that_vanishes_is_noticed(tmp_path):
    with serving(tmp_path, "--memory-limit", "1MiB", *STAYING) as broker:
        with RawPeer(broker.url).open() as watcher, RawPeer(broker.url).open() as publisher:
            declare(watcher, "full")
            publisher.say_while_heard(content(1, "full", 100_000, bytes(100_000)) * 100, 0.5)
            publisher.expect(spec.Connection.Blocked)
            publisher.reset()
            broker.expect_line(publisher.name, "closed")
            watcher.ask(spec.Queue.Purge(queue="full"), spec.Queue.PurgeOk, channel=1)
            broker.expect_line("publishers are no longer blocked")


# Small segments, of which there are few spare ones that could still be written.
FULL_DISK = ("--segment-size", "1MiB", "--disk-reserve", "1PiB")


def test_publishers_are_blocked_while_the_disk_is_full_and_consumers_are_not(tmp_path):
    with serving(tmp_path, *FULL_DISK[:2]) as broker, RawPeer(broker.url).open() as peer:
        declare(peer, "kept", durable=True)
        peer.ask(spec.Confirm.Select(), spec.Confirm.SelectOk, channel=1)
        peer.send(content(1, "kept", 50_000, bytes(50_000), persistent=True) * 100)
        while peer.expect(spec.Basic.Ack).delivery_tag < 100:
            pass
    with serving(tmp_path, *FULL_DISK) as broker:
        with RawPeer(broker.url).open() as publisher, RawPeer(broker.url).open() as consumer:
            declare(consumer, "more", durable=True)
            # More than may wait to be written, so that the lack of segments shows before its end.
            more = [content(1, "more", 50_000, bytes(50_000), persistent=True) * 100] * 40
            thread = threading.Thread(target=send_to_the_end, args=[publisher, more], daemon=True)
            thread.start()
            assert publisher.expect(spec.Connection.Blocked).reason == "low on disk"
            broker.expect_line("the journal cannot grow", str(broker.data))
            broker.expect_line("publishers are blocked: low on disk")
            broker.expect_line(publisher.name, "is blocked: low on disk")
            consumer.say(spec.Basic.Consume(queue="kept"), channel=1)
            for _ in range(100):
                consumer.expect(spec.Basic.Deliver)
                size = consumer.hear().body_size
                assert size == len(consumer.hear().fragment) == 50_000
            # A close does not wake the thread that sends.
            publisher.socket.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()
            publisher.reset()
            broker.expect_line(publisher.name, " closed")
            taken = declare(consumer, "more", passive=True).message_count
            assert taken * 50_000 < 100 * MEBI
            # Only now, since what it frees would be written to again.
            consumer.say(spec.Basic.Ack(delivery_tag=100, multiple=True), channel=1)
            assert declare(consumer, "kept", passive=True).message_count == 0
    # What was acknowledged meanwhile is gone, and what was taken is there.
    with serving(tmp_path) as broker, RawPeer(broker.url).open() as consumer:
        assert declare(consumer, "kept", passive=True).message_count == 0
        assert declare(consumer, "more", passive=True).message_count == taken


def send_to_the_end(peer, pieces):
    with contextlib.suppress(OSError):
        for piece in pieces:
            peer.socket.sendall(piece)


def test_disk_that_is_full_from_the_start_is_told(tmp_path):
    with serving(tmp_path, *FULL_DISK) as broker, RawPeer(broker.url).open() as publisher:
        broker.expect_line("publishers are blocked: low on disk")
        declare(publisher, "any")
        publisher.send(content(1, "any", 4, b"body"))
        assert publisher.expect(spec.Connection.Blocked).reason == "low on disk"


def test_full_disk_is_told_once(tmp_path):
    with serving(tmp_path, *FULL_DISK) as broker:
        broker.expect_line("the journal cannot grow")
        (tmp_path / "other").write_bytes(bytes(32 * MEBI))
        with pytest.raises(AssertionError):
            eventually(lambda: len(broker.lines("cannot grow")) > 2, "repetition", 5)


# Starting


def failed_start(*options):
    """What a broker says that cannot start; it ends soon, with exit code 1."""
    result = subprocess.run(
        [str(binary()), "serve", *options],
        capture_output=True,
        text=True,
        timeout=10,
        env=environment(),
    )
    assert result.returncode == 1, result
    assert "Fatal" not in result.stderr and len(result.stderr.splitlines()) < 5, result.stderr
    return result.stderr


def test_taken_port_is_told(tmp_path):
    with serving(tmp_path) as broker, Bystander(broker):
        address = f"127.0.0.1:{broker.port}"
        text = failed_start("--data", str(tmp_path / "other"), "--listen", address)
        assert address in text and "the port is taken by another program" in text


def test_taken_data_directory_is_told(tmp_path):
    with serving(tmp_path) as broker, Bystander(broker):
        address = f"127.0.0.1:{free_port()}"
        text = failed_start("--data", str(broker.data), "--listen", address)
        assert str(broker.data) in text and "in use by another broker" in text
        assert str(broker.process.pid) in text


def test_data_directory_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    text = failed_start("--data", str(tmp_path / "file"), "--listen", f"127.0.0.1:{free_port()}")
    assert str(tmp_path / "file") in text


# Stopping


def stop_in_time(broker):
    started = time.monotonic()
    assert broker.stop() == 0
    assert time.monotonic() - started < STOP_SECONDS


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_clients_are_told_that_the_broker_stops(tmp_path, signal_number):
    with contextlib.ExitStack() as stack:
        broker = WatchedBroker(tmp_path)
        stack.callback(broker.end)
        broker.start()
        peers = [stack.enter_context(RawPeer(broker.url).open()) for _ in range(20)]
        started = time.monotonic()
        broker.process.send_signal(signal_number)
        for peer in peers:
            assert peer.expect_close(320).startswith("CONNECTION_FORCED")
            peer.socket.close()
        assert broker.process.wait(STOP_SECONDS) == 0
        # Clients that answer are not waited for any longer.
        assert time.monotonic() - started < 1.5
        assert broker.lines("stopping", signal.Signals(signal_number).name)
        assert broker.lines("stopped")


def test_clients_that_do_not_answer_cannot_delay_the_stop(tmp_path):
    """Mute, half-open, in the middle of a frame, and with megabytes that it does not read."""
    with contextlib.ExitStack() as stack:
        broker = WatchedBroker(tmp_path)
        stack.callback(broker.end)
        broker.start()
        mute, unfinished, sleeper = (
            stack.enter_context(RawPeer(broker.url, receive_buffer=4096).open()) for _ in range(3)
        )
        stack.enter_context(RawPeer(broker.url)).send(PROTOCOL_HEADER[:4])
        stack.enter_context(RawPeer(broker.url)).send(PROTOCOL_HEADER)
        declare(mute, "backlog")
        sleeper.say(spec.Basic.Consume(queue="backlog"), channel=1)
        mute.send(content(1, "backlog", 100_000, bytes(100_000)) * 100)
        unfinished.send(content(1, "backlog", 100_000, bytes(50_000))[:-10_000])
        declare(mute, "backlog", passive=True)
        stop_in_time(broker)


def test_blocked_publisher_cannot_delay_the_stop(tmp_path):
    with contextlib.ExitStack() as stack:
        broker = WatchedBroker(tmp_path, "--memory-limit", "1MiB", *STAYING)
        stack.callback(broker.end)
        broker.start()
        publisher = stack.enter_context(RawPeer(broker.url).open())
        declare(publisher, "full")
        publisher.say_while_heard(content(1, "full", 100_000, bytes(100_000)) * 100, 0.5)
        publisher.expect(spec.Connection.Blocked)
        stop_in_time(broker)
        assert publisher.expect(spec.Connection.Close).reply_code == 320
