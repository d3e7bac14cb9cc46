"""The pepper from outside, by which a store knows people."""

from __future__ import annotations

from pbmon.outbound import secret_of
from pbmon.runtime import StoreError

_SHORTEST = 32


def pepper_of(where: str | None) -> bytes | None:
    """where: the setting `pepper`. Raises StoreError: without it nobody would be recognised."""
    if where is None:
        return None
    try:
        found = secret_of("pepper", where)
    except ValueError as error:
        raise StoreError(f"can't be used without its pepper: {error}") from None
    if len(found) < _SHORTEST:
        raise StoreError(
            f"can't be used: what the setting pepper names has less than {_SHORTEST} characters; "
            "make one with `openssl rand -hex 32`"
        )
    return found.encode()
