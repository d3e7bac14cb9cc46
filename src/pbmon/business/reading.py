"""The way to the store for functions that ask it something.

They wait for a database: never call them in a request's way, and in async code by
`await asyncio.to_thread(...)`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pbmon import runtime
from pbmon.moments import EPOCH
from pbmon.runtime import Reader


def store() -> Reader:
    """The store's reader, opened at the first call. Raises StoreError with the remedy."""
    return runtime.active.reader()


_MICROSECOND = timedelta(microseconds=1)


def micros(at: datetime) -> int:
    """An aware time as the store has it: µs since the epoch, UTC."""
    return (at - EPOCH) // _MICROSECOND
