"""The store as the business functions read it."""

from __future__ import annotations

from typing import Any

from pbmon import runtime
from pbmon.runtime import StoreError


def store() -> Any:
    """The opened pbmon.store.reader.Reader. Raises StoreError."""
    open_reader = runtime.active.reader
    if open_reader is None:
        raise StoreError("the store can't be read before pbmon.configure(); call it first")
    return open_reader()
