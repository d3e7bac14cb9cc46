"""The store, for figures that the application asks for."""

from __future__ import annotations

from typing import Any

from pbmon import runtime
from pbmon.runtime import StoreError


def store() -> Any:
    """What asks the store (store.queries.Queries). Raises StoreError."""
    open_reader = runtime.active.reader
    if open_reader is None:
        raise StoreError("the store is not known yet; call pbmon.configure() first")
    return open_reader()
