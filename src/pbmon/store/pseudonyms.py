"""How people, sessions and destinations are named in one store.

A person's row is found by an HMAC of the user's id under the store's own pepper (`pepper` in
`meta`); where there is one from outside as well, by an HMAC of that under it. `pepper_check` in
`meta` tells one from another. `epoch:<destination>` counts how often a destination's pseudonyms
were changed.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy import select

from pbmon import privacy
from pbmon.runtime import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

STORE = "store"
"""The destination that the store's own pseudonyms are made for."""

SPANS = "otlp"
"""Likewise those on spans."""

_PEPPER = "pepper"
_CHECK = "pepper_check"
_EPOCH = "epoch:"
_CACHED = 100_000


class Names:
    """own: the store's pepper. outside: the one from outside, if there is one."""

    def __init__(self, own: bytes, outside: bytes | None = None, size: int = _CACHED) -> None:
        self._own = own
        self._outside = outside
        self.user = lru_cache(size)(self._user)
        """From a user's id to the `lookup` of their row in `subjects`."""
        self.session = lru_cache(size)(self._session)
        """From a session's id to its pseudonym."""

    def _user(self, user_id: str) -> bytes:
        found = privacy.lookup(self._own, user_id)
        return found if self._outside is None else privacy.veiled(self._outside, found)

    def _session(self, session_id: str) -> bytes:
        return privacy.session_pseudonym(self._own, session_id)


def names(connection: Connection, pepper: bytes | None, size: int = _CACHED) -> Names:
    """pepper: the one from outside, if the settings give one. Raises StoreError where it is not
    the one by which people are known here."""
    there = _meta(connection)
    check = there.get(_CHECK)
    if pepper is None and check is not None:
        raise StoreError(
            "knows people by a pepper from outside, and there is none; set `pepper` "
            "(PBMON_PEPPER) to where it is"
        )
    if pepper is not None and check is None:
        raise StoreError(
            "knows people by its own pepper alone; run `pbmon pseudonyms pepper`, which brings it "
            "under the one of the setting `pepper`, or unset that"
        )
    if pepper is not None and not hmac.compare_digest(check or "", _check(pepper)):
        raise StoreError(
            "knows people by another pepper than the one of the setting `pepper`; set that to the "
            "former one: with a new one it would know nobody any more"
        )
    return Names(bytes.fromhex(there[_PEPPER]), pepper, size)


def adopt(connection: Connection, pepper: bytes) -> None:
    """From here on people are known by this one as well. Of a store that has people, their rows
    are to be changed in the same transaction."""
    from pbmon.store.tables import meta

    connection.execute(meta.insert(), {"key": _CHECK, "value": _check(pepper)})


def is_under_outside(connection: Connection) -> bool:
    return _CHECK in _meta(connection)


def _check(pepper: bytes) -> str:
    return privacy.veiled(pepper, b"check").hex()


# --- destinations -----------------------------------------------------------------------------


class Epochs:
    """Of each destination, how often its pseudonyms were changed."""

    def __init__(self, epochs: Mapping[str, int]) -> None:
        self._epochs = epochs

    def label(self, destination: str) -> str:
        """What the pseudonyms for a destination are made with now."""
        return _label(destination, self._epochs.get(destination, 0))

    def labels(self, destination: str) -> list[str]:
        """All that they were ever made with, the oldest first: a destination may still have what
        came under any of them."""
        return [_label(destination, n) for n in range(self._epochs.get(destination, 0) + 1)]


def _label(destination: str, epoch: int) -> str:
    return f"{destination}#{epoch}" if epoch else destination


def epochs(connection: Connection) -> Epochs:
    there = _meta(connection)
    return Epochs(
        {key.removeprefix(_EPOCH): int(n) for key, n in there.items() if key.startswith(_EPOCH)}
    )


def next_epoch(connection: Connection, destination: str) -> None:
    """Change the pseudonyms that are made for a destination from here on."""
    from pbmon.store.tables import meta

    key = _EPOCH + destination
    n = int(_meta(connection).get(key, "0")) + 1
    if n == 1:
        connection.execute(meta.insert(), {"key": key, "value": "1"})
    else:
        connection.execute(meta.update().where(meta.c.key == key).values(value=str(n)))


def _meta(connection: Connection) -> dict[str, str]:
    from pbmon.store.tables import meta

    return {row.key: row.value for row in connection.execute(select(meta.c.key, meta.c.value))}
