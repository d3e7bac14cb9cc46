"""The log records of the catalogue: readable text, the fields as extra attributes, no floods."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry import trace

from pbmon.catalog import Log
from pbmon.telemetry.clock import Clock

_PER_MINUTE = 10
_MAX_KEYS = 1000


class Notices:
    """Writes catalogue records to their stdlib loggers.

    A record given a `key` is written at most ten times a minute for that key; the next one let
    through says how many were held back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, str], list[float]] = {}

    def write(
        self, record: Log, *, key: str | None = None, span: Any = None, **values: Any
    ) -> None:
        """values: every field of the record, in its order."""
        logger = logging.getLogger(record.logger)
        level = logging.WARNING if record.level == "WARNING" else logging.INFO
        if not logger.isEnabledFor(level):
            return
        if key is not None:
            held_back = self._admit((record.message, key))
            if held_back is None:
                return
            if held_back:
                values["held_back"] = held_back
        logger.log(level, "%s", _line(record.message, values), extra=values | _trace(span))

    def _admit(self, key: tuple[str, str]) -> int | None:
        """None to hold the record back, else how many were held back since the last one."""
        now = self._clock.monotonic_s()
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= _MAX_KEYS:
                self._windows.clear()
            self._windows[key] = [now, 1, 0]
            return 0
        if now - window[0] >= 60:
            held_back = int(window[2])
            window[:] = [now, 1, 0]
            return held_back
        if window[1] >= _PER_MINUTE:
            window[2] += 1
            return None
        window[1] += 1
        return 0


def _line(message: str, values: dict[str, Any]) -> str:
    return f"{message} {' '.join(f'{name}={_text(value)}' for name, value in values.items())}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    text = str(value)
    if text.isprintable() and " " not in text and '"' not in text:
        return text
    # repr-like escapes keep a control character or a quote from forging a second field or line.
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def _trace(span: Any) -> dict[str, str]:
    context = (span or trace.get_current_span()).get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
