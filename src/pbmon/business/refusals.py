"""A wrong value handed to the API: counted by reason, told once per call site with the remedy."""

from __future__ import annotations

import sys

from opentelemetry.metrics import Meter

from pbmon import catalog, runtime, signals
from pbmon.runtime import Refused

_MAX_SITES = 1000
_told: set[tuple[str, int, str]] = set()


class RefusalError(ValueError):
    """The text is the remedy. reason: as in Refused."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(remedy)
        self.reason = reason


class Refusals:
    """Counts refused calls."""

    def __init__(self, meter: Meter) -> None:
        self._counts = signals.Counts(catalog.REFUSED_CALLS, meter)

    def count(self, call: str, reason: str) -> None:
        self._counts.cell(((catalog.CALL.name, call), (catalog.REASON.name, reason))).up()


def refuse(call: str, reason: str, remedy: str, *, depth: int = 2) -> Refused:
    """Refuse a call. Under strict, raises ValueError with the remedy instead.

    depth: frames between the application's line and this one.
    """
    if runtime.active.settings.strict:
        runtime.active.refusals(call, reason)
        raise ValueError(f"pbmon.{call}: {remedy}")
    note(call, reason, remedy, depth=depth + 1)
    return Refused(reason)


def note(call: str, reason: str, remedy: str, *, depth: int = 2) -> None:
    """Count a call that could not do what it was made for, and tell of its line once; not even
    strict makes an error of it."""
    runtime.active.refusals(call, reason)
    frame = sys._getframe(depth)  # noqa: SLF001 - CPython's documented name
    site = (frame.f_code.co_filename, frame.f_lineno, reason)
    if site not in _told and len(_told) < _MAX_SITES:
        _told.add(site)
        runtime.logger("api").warning(
            "pbmon.%s refused at %s:%d: %s (told once for this line)", call, *site[:2], remedy
        )
