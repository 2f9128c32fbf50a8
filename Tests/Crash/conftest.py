"""Options of the crash test. The broker itself comes from the tests with real clients."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Clients"))


def pytest_addoption(parser):
    parser.addoption(
        "--rounds",
        type=int,
        default=int(os.environ.get("MARTLET_CRASH_ROUNDS", "20")),
        help="how often the broker is killed (or MARTLET_CRASH_ROUNDS; default 20)",
    )
    parser.addoption(
        "--seed",
        type=int,
        default=os.environ.get("MARTLET_CRASH_SEED"),
        help="seed of the moments at which it is killed (or MARTLET_CRASH_SEED)",
    )
