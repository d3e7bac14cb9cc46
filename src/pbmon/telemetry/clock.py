"""The two clocks of a record: wall time for when it began, monotonic time for how long it took."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """testing.capture() puts a counting one in place."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""

    def monotonic_s(self) -> float:
        """Seconds that never go back, whatever is done to the wall clock."""


class SystemClock:
    wall_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.perf_counter)
