"""State directories of processes that tests start: a fresh one for each, or a process would adopt
what the dead ones of another test left.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

VARIABLE = "PBMON_STATE_DIR"


def fresh() -> str:
    """A directory that lives as long as this process."""
    return tempfile.mkdtemp(dir=_root(os.getpid()))


@cache
def _root(pid: int) -> Path:
    """pid: of this process, so that a forked one makes, and removes, its own."""
    root = Path(tempfile.mkdtemp(prefix="pbmon-tests-"))
    atexit.register(_remove, pid, root)
    return root


def _remove(pid: int, root: Path) -> None:
    if pid == os.getpid():
        shutil.rmtree(root, ignore_errors=True)
