"""A state directory of its own for each test, mapped and not."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from pbmon.spool.books import Books
from pbmon.spool.directory import Home
from tests.spool.spools import Spools
from tests.stack.plugin import missing


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


@pytest.fixture
def volume():
    """Makes small file systems: volume(bytes) → directory."""
    mounted = []

    def mount(size: int) -> Path:
        point = Path("/tmp") / f"pbmon-volume-{uuid.uuid4().hex[:8]}"
        point.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", point],
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            point.rmdir()
            missing("mount", "no file system can be mounted here")
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", "-l", point], check=True)
        point.rmdir()
