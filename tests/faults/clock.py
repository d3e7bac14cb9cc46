"""A wall clock that a test can step, put in place before anything has taken time.time."""

from __future__ import annotations

import time

_offset_ns = 0
_time_ns = time.time_ns


def install() -> None:
    time.time_ns = lambda: _time_ns() + _offset_ns
    time.time = lambda: time.time_ns() / 1e9


def step(seconds: float) -> None:
    """Move the wall clock; the monotonic clocks go on."""
    global _offset_ns
    _offset_ns += round(seconds * 1e9)
