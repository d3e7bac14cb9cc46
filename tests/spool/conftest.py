"""A state directory of its own for each test, mapped and not."""

from __future__ import annotations

import os

import pytest

from pbmon.spool.books import Books
from pbmon.spool.directory import Home
from tests.spool.spools import Spools


@pytest.fixture(params=["mapped", "written"])
def home(request, tmp_path):
    made = Home(tmp_path / "state", "shop")
    made.mapped = request.param == "mapped"
    yield made
    os.close(made._lock_fd)


@pytest.fixture
def books():
    return Books()


@pytest.fixture
def spools(home, books):
    """What makes spools and adopts them, and lets them all go in the end."""
    made = Spools(home, books)
    yield made
    made.let_go()
