"""Tests of your own telemetry: `with capture() as seen: ...` and look at what was made.

Also the pytest plugin: the fixture `pbmon_capture` and the marker `budget`. It is loaded in every
pytest run where pbmon is installed, so the names below are loaded at their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pbmon.testing.capturing import START_NS as START_NS
    from pbmon.testing.capturing import Capture as Capture
    from pbmon.testing.capturing import CountingClock as CountingClock
    from pbmon.testing.capturing import capture as capture
    from pbmon.testing.seen import SeenEvent as SeenEvent
    from pbmon.testing.seen import SeenLog as SeenLog
    from pbmon.testing.seen import SeenRequest as SeenRequest
    from pbmon.testing.seen import SeenSpan as SeenSpan

try:
    import pytest  # noqa: F401
except ImportError:  # capture() works without it
    pass
else:
    from pbmon.testing.plugin import pbmon_capture as pbmon_capture
    from pbmon.testing.plugin import pytest_addoption as pytest_addoption
    from pbmon.testing.plugin import pytest_collection_modifyitems as pytest_collection_modifyitems
    from pbmon.testing.plugin import pytest_configure as pytest_configure
    from pbmon.testing.plugin import pytest_runtest_call as pytest_runtest_call

_CAPTURING = ("START_NS", "Capture", "CountingClock", "capture")
_SEEN = ("SeenEvent", "SeenLog", "SeenRequest", "SeenSpan")

__all__ = [*_CAPTURING, *_SEEN]  # noqa: PLE0604


# Not listed by dir(): pytest looks at each name that is.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pbmon.testing' has no attribute {name!r}")
    from importlib import import_module

    module = "capturing" if name in _CAPTURING else "seen"
    return getattr(import_module(f"pbmon.testing.{module}"), name)
