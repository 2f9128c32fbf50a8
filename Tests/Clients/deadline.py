"""A limit to how long a test may take."""

import contextlib
import signal

import pytest


@contextlib.contextmanager
def limit(seconds: int):
    """Fails the test when the block takes longer, wherever it waits."""

    def expire(_signal, _frame):
        # Not an OSError, which a client would take for a broken connection.
        pytest.fail(f"the test took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
