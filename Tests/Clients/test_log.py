"""What the broker's log says, and that whoever should read it cannot hold the broker up."""

import contextlib
import os
import re
import signal
import socket
import subprocess

import pika
import pytest
from pika import spec

from raw_peer import PROTOCOL_HEADER, RawPeer
from watched_broker import Bystander, WatchedBroker, eventually, serving

FLOOD = 300


def refuse(broker, times):
    """So many logins with a wrong password."""
    for _ in range(times):
        with RawPeer(broker.url) as peer:
            peer.send(PROTOCOL_HEADER)
            peer.expect(spec.Connection.Start)
            peer.say(spec.Connection.StartOk({}, "PLAIN", "\0guest\0wrong", "en_US"))
            peer.expect_end()


def test_repeated_kinds_are_counted(tmp_path):
    with serving(tmp_path) as broker:
        refuse(broker, FLOOD)
        line = broker.expect_line("more in the last 10 s: logins refused", seconds=20)
        told = len(broker.lines("was refused: user 'guest'"))
        assert f"{FLOOD - told} of 127.0.0.1" in line
        assert told < 30


def test_arguments_without_effect_are_told_once_whoever_declares(tmp_path):
    with serving(tmp_path) as broker:
        for number in range(5):
            url = pika.URLParameters(broker.url)
            with contextlib.closing(pika.BlockingConnection(url)) as connection:
                for name in ("same", f"other-{number}"):
                    arguments = {"x-mesage-ttl": 5, "x-message-ttl": 5}
                    connection.channel().queue_declare(name, arguments=arguments)
        broker.expect_line("the argument 'x-mesage-ttl' has no effect")
        assert len(broker.lines("has no effect")) == 1


def test_health_checks_are_no_warnings(tmp_path):
    with serving(tmp_path) as broker:
        for said in (b"", b"A", PROTOCOL_HEADER[:7]):
            for _ in range(10):
                with socket.create_connection(("127.0.0.1", broker.port)) as check:
                    check.sendall(said)
        pika.BlockingConnection(pika.URLParameters(broker.url)).close()
        assert not broker.lines("warning")


def test_words_of_clients_do_no_harm(tmp_path):
    with serving(tmp_path) as broker:
        evil = "\x9b2J\u2028forged\u202e\x1b[31m" + "n" * 30_000
        parameters = pika.URLParameters(broker.url)
        parameters.client_properties = {"connection_name": evil}
        pika.BlockingConnection(parameters).close()
        line = broker.expect_line("opened by 'guest'")
        assert r"\u{9b}2J\u{2028}forged\u{202e}\u{1b}[31m" in line
        assert len(line) < 500


@contextlib.contextmanager
def unread(tmp_path, *options):
    """A broker whose standard error is a pipe that nobody reads; the pipe's other end with it."""
    if os.environ.get("MARTLET_TEST_URL"):
        pytest.skip("the broker of MARTLET_TEST_URL has a log of its own")
    broker = WatchedBroker(tmp_path, *options)
    reads, writes = os.pipe()
    broker.process = subprocess.Popen(broker.command, stdin=subprocess.DEVNULL, stderr=writes)
    os.close(writes)
    try:
        eventually(broker._accepts, "listening broker")
        yield broker, reads
    finally:
        broker.end()
        os.close(reads)


def test_log_that_nobody_reads_holds_nobody_up(tmp_path):
    """The pipe holds 64 KiB; ten times as much is logged beside a bystander."""
    with unread(tmp_path, "--log-level", "debug") as (broker, reads):
        with Bystander(broker):
            refuse(broker, 4000)
        assert broker.resident() < 64 << 20
        read = b""
        while b"was refused" not in read or read.count(b"\n") < 8000:
            read += os.read(reads, 1 << 20)


def test_end_does_not_wait_for_a_reader_for_ever(tmp_path):
    with unread(tmp_path, "--log-level", "debug") as (broker, reads):
        refuse(broker, 1000)
        assert broker.stop() == 0
        assert os.read(reads, 1 << 20).count(b"\n") > 100


def test_last_lines_are_written_before_the_end(tmp_path):
    with unread(tmp_path) as (broker, reads):
        assert broker.stop() == 0
        read = b""
        while piece := os.read(reads, 1 << 20):
            read += piece
        assert re.search(rb"info    stopped; .*journal-commits=\d+.*\n\Z", read)


def test_lines_before_a_crash_are_written(tmp_path):
    with serving(tmp_path) as broker:
        for _ in range(100):
            pika.BlockingConnection(pika.URLParameters(broker.url)).close()
        broker.process.send_signal(signal.SIGSEGV)
        assert broker.process.wait(10) == -signal.SIGSEGV
        assert len(broker.lines("opened by 'guest'")) == 100
        broker.start()


@pytest.mark.parametrize(
    "name", ["SIGHUP", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGRTMIN", "SIGPIPE"]
)
def test_signals_that_mean_nothing_end_nothing(tmp_path, name):
    with serving(tmp_path) as broker, Bystander(broker):
        broker.process.send_signal(getattr(signal, name))
        if name != "SIGPIPE":
            told = str(int(signal.SIGRTMIN)) if name == "SIGRTMIN" else name
            broker.expect_line(told, "changes nothing")


@pytest.mark.parametrize("name", ["SIGQUIT", "SIGPWR", "SIGXCPU"])
def test_signals_that_ask_for_the_end_stop_in_order(tmp_path, name):
    with serving(tmp_path) as broker:
        with RawPeer(broker.url).open() as peer:
            broker.process.send_signal(getattr(signal, name))
            peer.expect_close(320)
        assert broker.process.wait(10) == 0
        assert broker.lines("stopping, as signal", name) and broker.lines("stopped;")
        broker.start()


@pytest.mark.parametrize("limit, fits", [(64, None), (73, None), (74, 8), (104, 30)])
def test_few_descriptors_are_told(tmp_path, limit, fits):
    broker = WatchedBroker(tmp_path)
    broker.command = ["prlimit", f"--nofile={limit}:{limit}", *broker.command]
    if fits is None:
        result = subprocess.run(broker.command, capture_output=True, text=True, timeout=20)
        assert result.returncode == 1
        assert f"only {limit} files may be open" in result.stderr
        assert "allow at least 74" in result.stderr
        return
    try:
        broker.start()
        broker.expect_line(f"{fits} clients fit in", f"(ulimit -n) is {limit}")
        with contextlib.ExitStack() as stack:
            for _ in range(fits):
                stack.enter_context(RawPeer(broker.url).open())
            # The next one is told why it may not stay.
            peer = stack.enter_context(RawPeer(broker.url))
            peer.send(PROTOCOL_HEADER)
            peer.expect(spec.Connection.Start)
            peer.say(spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
            peer.expect(spec.Connection.Tune)
            peer.say(spec.Connection.TuneOk(0, 0, 0), spec.Connection.Open("/"))
            assert f"connection limit ({fits}) is reached" in peer.expect_close(530)
            crowd = [stack.enter_context(RawPeer(broker.url)) for _ in range(limit)]
            broker.expect_line("is turned away", f"(ulimit -n) is {limit}")
            crowd[-1].expect_end()
        assert broker.stop() == 0
    finally:
        broker.end()


