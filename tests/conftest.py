"""What every test gets: the real stack's fixtures, and our own faults raised instead of told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pbmon import signals

pytest_plugins = ("tests.stack.plugin",)


@pytest.fixture(autouse=True)
def faults_are_raised() -> Iterator[None]:
    """guard() swallows our failures in production; here a test must see them."""
    signals.reraise = True
    yield
    signals.reraise = False
