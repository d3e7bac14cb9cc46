"""Tests of your own telemetry: `with capture() as seen: ...` and look at what was made.

Also the pytest plugin: the fixture `pbmon_capture` and the marker `budget`.
"""

from __future__ import annotations

from pbmon.testing.capturing import START_NS, Capture, CountingClock, capture
from pbmon.testing.seen import SeenEvent, SeenLog, SeenRequest, SeenSpan

__all__ = [
    "START_NS", "Capture", "CountingClock", "SeenEvent", "SeenLog", "SeenRequest", "SeenSpan",
    "capture",
]  # fmt: skip

try:
    import pytest  # noqa: F401
except ImportError:  # capture() works without it
    pass
else:
    from pbmon.testing.plugin import (
        pbmon_capture,
        pytest_addoption,
        pytest_collection_modifyitems,
        pytest_configure,
        pytest_runtest_call,
    )

    __all__ += [
        "pbmon_capture", "pytest_addoption", "pytest_collection_modifyitems", "pytest_configure",
        "pytest_runtest_call",
    ]  # fmt: skip
