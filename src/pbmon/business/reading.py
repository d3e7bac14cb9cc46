"""The way to the figures that the store has."""

from __future__ import annotations

from typing import Any

from pbmon import runtime
from pbmon.runtime import StoreError


def store() -> Any:
    """The store in force, opened to be read (store.queries.Queries). Raises StoreError with the
    remedy, as each of its queries does."""
    reader = runtime.active.reader
    if reader is None:
        raise StoreError("pbmon is not configured; call pbmon.configure() first")
    return reader()
