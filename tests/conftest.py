"""What every test gets: the real stack's fixtures, our own faults raised instead of told, a state
directory that is not the user's, and signals as a shell in front of a person has them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from pbmon import signals
from pbmon.store import engine
from tests import state

# A shell that runs us in the background has SIGINT ignored, and every process we start would
# inherit that, however it is to be ended.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ("tests.stack.plugin",)

os.environ[state.VARIABLE] = state.fresh()
os.environ["XDG_STATE_HOME"] = state.fresh()  # where a test drops all PBMON_ variables


@pytest.fixture(autouse=True)
def engines_are_disposed() -> Iterator[None]:
    """Those of stores: a connection that is left open is a warning in whatever test comes when it
    is collected."""
    made = []
    make = engine.make

    def noting(*args: Any, **options: Any) -> Any:
        made.append(make(*args, **options))
        return made[-1]

    engine.make = noting
    yield
    engine.make = make
    for each in made:
        each.dispose()


@pytest.fixture(autouse=True)
def faults_are_raised() -> Iterator[None]:
    """guard() swallows our failures in production; here a test must see them."""
    signals.reraise = True
    yield
    signals.reraise = False
