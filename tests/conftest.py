"""What every test gets: the real stack's fixtures, our own faults raised instead of told, and a
state directory that is not the user's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pbmon import signals
from tests import state

pytest_plugins = ("tests.stack.plugin",)

os.environ[state.VARIABLE] = state.fresh()
os.environ["XDG_STATE_HOME"] = state.fresh()  # where a test drops all PBMON_ variables


@pytest.fixture(autouse=True)
def faults_are_raised() -> Iterator[None]:
    """guard() swallows our failures in production; here a test must see them."""
    signals.reraise = True
    yield
    signals.reraise = False
