"""A journal that is damaged, full, in use or gone: what the broker and the tools say of it."""

import contextlib
import os
import shutil
import socket
import subprocess

import pika
import pytest

from broker import Broker, BrokerFailed, binary, environment
from confirmed_publisher import ConfirmedPublisher
from watched_broker import eventually

DAMAGED = 5
TMPFS_MEGABYTES = 24


@pytest.fixture
def broker(tmp_path):
    """A broker of a test's own with small segments; the test starts it."""
    if os.environ.get("MARTLET_TEST_URL"):
        pytest.skip("the broker of MARTLET_TEST_URL has no journal to look into")
    broker = Broker(tmp_path, "--segment-size", "1MiB", "--disk-reserve", "0")
    yield broker
    broker.end()


def journal(command, broker, *words):
    """What `martlet journal` says of the broker's directory, and its exit code."""
    result = subprocess.run(
        [str(binary()), "journal", command, str(broker.data), *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
    )
    return result.returncode, result.stdout + result.stderr


def fill(broker, count, size=4000):
    """Confirmed messages of a durable queue."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker.url))) as connection:
        connection.channel().queue_declare("durable", durable=True)
    bodies = (b"%d" % number + b"x" * size for number in range(count))
    publisher = ConfirmedPublisher(broker.url, (("", "durable", body) for body in bodies))
    assert publisher.run() is None
    assert len(publisher.confirmed) == count


def segments(broker):
    return sorted(
        path
        for path in (broker.data / "journal").glob("*.segment")
        if not path.name.startswith("spare-")
    )


def refusal(broker):
    """What the broker says when it does not start."""
    with pytest.raises(BrokerFailed) as failed:
        broker.start()
    return str(failed.value)


def test_a_last_segment_that_was_removed_is_missed(broker):
    broker.start()
    fill(broker, 1000)
    broker.kill()
    last = segments(broker)[-1]
    last.unlink()
    assert last.name in refusal(broker)
    code, text = journal("verify", broker)
    assert code == DAMAGED and last.name in text
    code, text = journal("repair", broker)
    assert code == DAMAGED and "an unknown number lost" in text
    assert journal("repair", broker, "--yes")[0] == 0
    broker.start()
    assert broker.stop() == 0


def test_nobody_is_let_in_before_the_journal_is_found_sound(broker):
    broker.start()
    fill(broker, 1000)
    broker.kill()
    segments(broker)[-1].unlink()
    with broker.log.open("ab") as log:
        starting = subprocess.Popen(broker.command, stdout=log, stderr=log, env=environment())
    try:
        while starting.poll() is None:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", broker.port), timeout=5).close()
    finally:
        starting.kill()
        starting.wait()
    assert starting.returncode == 1


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4095, 5000])
def test_a_lone_segment_of_any_length_is_named(broker, size):
    broker.start()
    fill(broker, 10)
    broker.kill()
    (segment,) = segments(broker)
    os.truncate(segment, size)
    text = refusal(broker)
    assert segment.name in text and "journal verify" in text and "Input/output" not in text
    assert journal("verify", broker)[0] == DAMAGED
    assert journal("inspect", broker)[0] == DAMAGED
    assert journal("repair", broker, "--yes")[0] == 0
    broker.start()
    assert broker.stop() == 0


@pytest.mark.parametrize(
    "name", ["zzzz.segment", "FFFFFFFFFFFFFFFF.segment", "copy.segment", "x.lanes", "7.checkpoint"]
)
def test_a_name_that_is_not_the_journals_is_named(broker, name):
    broker.start()
    fill(broker, 10)
    assert broker.stop() == 0
    shutil.copy(segments(broker)[0], broker.data / "journal" / name)
    assert name in refusal(broker)
    code, text = journal("verify", broker)
    assert code == DAMAGED and name in text and "move it" in text
    assert journal("repair", broker, "--yes")[0] == 0
    broker.start()
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker.url))) as connection:
        declared = connection.channel().queue_declare("durable", passive=True)
        assert declared.method.message_count == 10
    assert broker.stop() == 0


def test_a_directory_with_the_name_of_a_lane_file_is_named(broker):
    broker.start()
    assert broker.stop() == 0
    stray = broker.data / "journal" / "0000000000000007.lanes"
    stray.mkdir()
    assert stray.name in refusal(broker)
    code, text = journal("verify", broker)
    assert code == DAMAGED and stray.name in text
    assert journal("repair", broker, "--yes")[0] == 0
    broker.start()
    assert broker.stop() == 0


def test_a_lock_that_was_removed_lets_no_second_broker_in(broker, tmp_path):
    broker.start()
    (broker.data / "lock").unlink()
    second = Broker(tmp_path / "second")
    (tmp_path / "second").mkdir()
    second.command[second.command.index("--data") + 1] = str(broker.data)
    try:
        assert "in use" in refusal(second)
    finally:
        second.end()
    # Somebody who talks to the broker keeps it awake.
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker.url))):
        eventually(lambda: "/lock was removed" in broker.log.read_text(), "word on the lock")
    assert broker.stop() == 0


def test_a_broker_leaves_alone_what_was_put_in_its_directorys_place(broker):
    broker.start()
    fill(broker, 10)
    broker.data.rename(broker.data.with_name("away"))
    second = Broker(broker.data.parent, "--segment-size", "1MiB")
    second.log = broker.log.with_name("second.log")
    try:
        second.start()
        fill(second, 10)
        files = sorted(path.name for path in (second.data / "journal").iterdir())
        # As much as needs some segments; the first broker has nowhere to put it, and says so.
        bodies = (b"%d" % number + b"x" * 100_000 for number in range(100))
        url = broker.url + "?blocked_connection_timeout=2"
        publisher = ConfirmedPublisher(url, (("", "durable", body) for body in bodies))
        assert publisher.run() is not None
        assert len(publisher.confirmed) < 100
        eventually(
            lambda: f"{broker.data} was moved, removed or replaced" in broker.log.read_text(),
            "word on the directory",
        )
        assert sorted(path.name for path in (second.data / "journal").iterdir()) == files
        broker.kill()
        assert second.stop() == 0
        second.start()
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(second.url))) as found:
            declared = found.channel().queue_declare("durable", passive=True)
            assert declared.method.message_count == 10
        assert second.stop() == 0
    finally:
        second.end()


def test_a_journal_that_vanished_is_a_warning(broker):
    broker.start()
    fill(broker, 10)
    assert broker.stop() == 0
    assert "there was a journal" not in broker.log.read_text()
    shutil.rmtree(broker.data / "journal")
    broker.start()
    warnings = [line for line in broker.log.read_text().splitlines() if "there was a journal" in line]
    assert len(warnings) == 1 and "warning" in warnings[0].lower()
    assert broker.stop() == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few MiB."""
    place = tmp_path / "small"
    place.mkdir()
    options = f"size={TMPFS_MEGABYTES}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_where_no_segment_fits_that_is_said_once_and_to_whom_waits(small_disk):
    broker = Broker(small_disk, "--disk-reserve", "0")
    broker.log = small_disk.parent / "broker.log"
    try:
        broker.start()
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            connection.channel().queue_declare("durable", durable=True)
        assert closed.value.reply_code == 541
        assert "No space left" in closed.value.reply_text
        spares = (broker.data / "journal").glob
        eventually(lambda: not list(spares("spare-*")), "clearing up")
        said = [line for line in broker.log.read_text().splitlines() if "cannot grow" in line]
        assert len(said) == 1, said
    finally:
        broker.end()


@pytest.mark.parametrize("place", ["data", "data/journal"])
def test_a_file_in_place_of_a_directory_is_named(broker, place):
    path = broker.data.parent / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("not a directory")
    text = refusal(broker)
    assert f"{path}: Not a directory" in text, text
