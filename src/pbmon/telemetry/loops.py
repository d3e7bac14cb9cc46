"""How late the event loops that serve requests are: what blocks one delays all its requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref

from opentelemetry import metrics

from pbmon import catalog, signals

INTERVAL_S = 0.5
"""Between two looks at a loop; each is one timer of the loop itself, no task and no thread."""


class LoopLag:
    """The watchers of this process, one for each loop.

    A watcher ends with its loop and keeps nothing alive. A loop that stands still between two
    runs is late by that time, once.
    """

    def __init__(self, meter: metrics.Meter) -> None:
        self._histogram = signals.histogram(catalog.EVENT_LOOP_LAG, meter=meter)
        self._watched: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    def watch(self) -> None:
        """Watch the asyncio loop that runs here (uvloop's too); nothing where none does."""
        with contextlib.suppress(RuntimeError):  # no loop, or trio's
            loop = asyncio.get_running_loop()
            if loop not in self._watched:
                self._watched.add(loop)
                _Watcher(loop, self._histogram).wait()


class _Watcher:
    __slots__ = ("_due_s", "_histogram", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, histogram: metrics.Histogram) -> None:
        self._loop = weakref.ref(loop)
        self._histogram = histogram
        self._due_s = 0.0

    def wait(self) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            # Not loop.time(): uvloop's is that of the iteration's start, and in milliseconds.
            self._due_s = time.monotonic() + INTERVAL_S
            loop.call_later(INTERVAL_S, self._look)

    def _look(self) -> None:
        lag_s = max(time.monotonic() - self._due_s, 0.0)
        with signals.guard("watching an event loop"):
            self._histogram.record(lag_s)
        self.wait()
