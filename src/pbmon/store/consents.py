"""What the store says of people's decisions, and of whom something may be said."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from pbmon.purposes import PURPOSES, Decision, Terms
from pbmon.store import pseudonyms, schema
from pbmon.store.people import NOBODY, people_of
from pbmon.store.tables import consents, meta, subjects

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Said(NamedTuple):
    """A decision as it was written down. Times are µs since the epoch, UTC; stored_at: unknown of
    old ones."""

    purpose: str
    granted: bool
    version: str | None
    decided_at: int
    stored_at: int | None


class Keys(NamedTuple):
    """version: of what is known of people; another one: nobody of those asked for before may be
    relied on. label: what the pseudonyms on spans are made with."""

    version: str
    label: str
    of: Mapping[str, bytes]
    """User id → key, of whom something may be kept now."""


def decisions(
    connection: Connection, pepper: bytes | None, user_id: str
) -> dict[str, Decision | None] | None:
    """Purpose → last decision; None where the person was deleted. Raises StoreError."""
    lookup = pseudonyms.names(connection, pepper, 1).user(user_id)
    person = next(iter(people_of(connection, [lookup])), NOBODY)
    if person.is_deleted:
        return None
    return {purpose: getattr(person, purpose) for purpose in PURPOSES}


def history(connection: Connection, pepper: bytes | None, user_id: str) -> list[Said]:
    """Raises StoreError."""
    lookup = pseudonyms.names(connection, pepper, 1).user(user_id)
    columns = (consents.c[name] for name in Said._fields)
    found = connection.execute(
        select(*columns).where(consents.c.lookup == lookup).order_by(consents.c.id)
    )
    return [Said(*row) for row in found]


def counts(connection: Connection, purpose: str) -> tuple[int, int]:
    """People whose last word is that they agree, and that they do not."""
    word = subjects.c[purpose]
    query = select(word, func.count()).where(word.is_not(None), subjects.c.deleted_at.is_(None))
    found = {row[0]: row[1] for row in connection.execute(query.group_by(word))}
    return found.get(True, 0), found.get(False, 0)


def keys(
    connection: Connection, pepper: bytes | None, user_ids: Collection[str], terms: Terms
) -> Keys:
    """terms: of the purpose `analytics`. Raises StoreError."""
    names = pseudonyms.names(connection, pepper, len(user_ids))
    version = connection.execute(
        select(meta.c.value).where(meta.c.key == schema.PEOPLE_VERSION)
    ).scalar_one()
    lookups = {names.user(user): user for user in user_ids}
    now = schema.now()
    return Keys(
        version,
        pseudonyms.epochs(connection).label(pseudonyms.SPANS),
        {
            lookups[each.lookup]: each.key
            for each in people_of(connection, lookups)
            if each.key and terms.may(each.analytics, now)
        },
    )
