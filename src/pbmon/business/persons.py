"""delete_user and export_user: what the application owes a person who asks for it."""

from __future__ import annotations

from typing import Any

from pbmon import identity, runtime
from pbmon.erasure import Receipt

TIMEOUT_S = 10.0


def delete_user(user_id: str | int, *, timeout_s: float = TIMEOUT_S) -> Receipt:
    """Delete all that pbmon holds of a person, for good.

    user_id: the application's own id, 1 to 255 characters. Unknown ones may be deleted too: what
        waits somewhere of them is refused when it comes.
    timeout_s: how long what waits outside of the tables (journals of other processes, the outbox)
        is waited for; it is cleared all the same.

    Returns a Receipt: counts by table, and what is outstanding, such as destinations that are to
    delete their part; the leader sees to that. A second call changes nothing and returns the
    receipt as it is by then. Killed in the middle it is finished by the leader.

    Events, sessions, feedback, exposures, decisions and the key of the pseudonyms go; transactions
    stay and are nobody's. Events of this id are refused from now on. See docs/deletion.md.

    Waits for the store: never in a request's way, in async code by asyncio.to_thread(). Raises
    TypeError, ValueError for no id, StoreError where the store can't be reached: then nothing was
    done, or what was begun goes on.
    """
    return runtime.active.eraser.delete(_checked(user_id), timeout_s)


def export_user(user_id: str | int, *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """All that pbmon holds of a person, as one value of JSON.

    user_id: as of delete_user(). timeout_s: how long what waits on this host is waited for.

    Returns `format` (pbmon/export/1), `known` (False: nothing is held), `tables` (table → rows,
    times as RFC 3339 in UTC), `destinations` that have got events, and who the person is there.
    docs/export.schema.json describes it.

    Waits for the store, and raises, as delete_user().
    """
    return runtime.active.eraser.export(_checked(user_id), timeout_s)


def _checked(user_id: str | int) -> str:
    known = identity.checked("user_id", user_id)
    if known is None:
        raise ValueError("user_id must have 1 to 255 characters")
    return known
