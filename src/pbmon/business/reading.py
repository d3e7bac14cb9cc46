"""The way to the store for functions that ask it something.

They wait for a database: never call them in a request's way, and in async code by
`await asyncio.to_thread(...)`.
"""

from __future__ import annotations

from pbmon import runtime
from pbmon.runtime import Reader


def store() -> Reader:
    """The store's reader, opened at the first call. Raises StoreError with the remedy."""
    return runtime.active.reader()
