"""New pseudonyms in the place of old ones.

Of a person: another key. What this store holds of them is rewritten in the same transaction, so
their history stays whole; what has left under the old key can't be linked to them any more, by
anybody. Of a destination: from here on it knows everybody by another name. And the store itself
brought under a pepper from outside, which changes no pseudonym but how people are found.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, text, update

from pbmon import privacy
from pbmon.runtime import StoreError
from pbmon.store import pseudonyms, schema
from pbmon.store.access import asking
from pbmon.store.engine import SCHEMA
from pbmon.store.people import people_of
from pbmon.store.pseudonyms import STORE
from pbmon.store.tables import dead_letters, deliveries, metadata, subjects

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

_LEAVING = (deliveries, dead_letters)
"""Their `subject` is the pseudonym for the destination."""

_AT_ONCE = 500


def _with(column: str) -> list[Table]:
    return [table for table in metadata.sorted_tables if column in table.c]


class Rotation:
    """pepper: from outside, where there is one. Each method raises StoreError."""

    def __init__(self, engine: Engine, pepper: bytes | None) -> None:
        self._engine = engine
        self._pepper = pepper

    def person(self, user_id: str) -> int | None:
        """Rows that are this person's by their new pseudonym; None where nobody is known."""

        def do() -> int | None:
            with self._engine.begin() as connection:
                schema.hold_people(connection, changes=True)
                lookup = pseudonyms.names(connection, self._pepper, 1).user(user_id)
                changed = _change_keys(connection, [lookup])
                if changed is not None:
                    schema.note_change_of_people(connection)
                return changed

        return asking(do)

    def everybody(self) -> tuple[int, int]:
        """People, and rows. Nothing is stored meanwhile."""

        def do() -> tuple[int, int]:
            with self._engine.begin() as connection:
                schema.hold_people(connection, changes=True)
                known = select(subjects.c.lookup).where(subjects.c.key.is_not(None))
                lookups = [bytes(each) for each in connection.execute(known).scalars()]
                rows = _change_keys(connection, lookups) or 0
                schema.note_change_of_people(connection)
                return len(lookups), rows

        return asking(do)

    def destination(self, name: str) -> int:
        """Events that wait for it, under their new pseudonyms."""

        def do() -> int:
            with self._engine.begin() as connection:
                schema.hold_people(connection, changes=True)
                pseudonyms.next_epoch(connection, name)
                schema.note_change_of_people(connection)
                return sum(_rename(connection, table, name) for table in _LEAVING)

        return asking(do)

    def adopt(self) -> int:
        """Bring the store under the pepper from outside; how many people."""
        pepper = self._pepper
        if pepper is None:
            raise StoreError(
                "needs a pepper from outside for that; set `pepper` (PBMON_PEPPER) to where it is"
            )

        def do() -> int:
            with self._engine.begin() as connection:
                schema.hold_people(connection, changes=True)
                if pseudonyms.is_under_outside(connection):
                    pseudonyms.names(connection, pepper, 1)
                    return 0
                pseudonyms.adopt(connection, pepper)
                count = 0
                for table in _with("lookup"):
                    found = _veil(connection, table, pepper)
                    count += found if table is subjects else 0
                schema.note_change_of_people(connection)
                return count

        return asking(do)

    def close(self) -> None:
        self._engine.dispose()


def _change_keys(connection: Connection, lookups: Sequence[bytes]) -> int | None:
    """Rows that were rewritten; None where none of them has a key."""
    old_to_new: list[tuple[bytes, bytes]] = []
    for start in range(0, len(lookups), _AT_ONCE):
        keys = []
        for person in people_of(connection, lookups[start : start + _AT_ONCE]):
            if person.subject is None:
                continue
            key = secrets.token_bytes(32)
            keys.append({"lookup_": person.lookup, "key": key})
            old_to_new.append((person.subject, privacy.pseudonym(key, STORE)))
        if keys:
            connection.execute(_KEY, keys)
    if not old_to_new:
        return None
    rows = _rewrite(connection, old_to_new)
    for table in _LEAVING:
        whose = table.c.lookup.in_(lookups) if len(lookups) == 1 else table.c.lookup.is_not(None)
        names = connection.execute(select(table.c.destination).distinct().where(whose)).scalars()
        for name in list(names):
            rows += _rename(connection, table, name, lookups if len(lookups) == 1 else None)
    return rows


def _rewrite(connection: Connection, old_to_new: Sequence[tuple[bytes, bytes]]) -> int:
    tables = [table for table in _with("subject") if table not in _LEAVING]
    if len(old_to_new) == 1:
        ((old, new),) = old_to_new
        return sum(
            connection.execute(
                update(table).where(table.c.subject == old).values(subject=new)
            ).rowcount
            for table in tables
        )
    is_postgresql = connection.dialect.name == "postgresql"
    kind, ends = ("bytea", " ON COMMIT DROP") if is_postgresql else ("blob", "")
    connection.execute(
        text(f"CREATE TEMP TABLE rekeyed (old {kind} PRIMARY KEY, new {kind} NOT NULL){ends}")
    )
    connection.execute(
        text("INSERT INTO rekeyed VALUES (:old, :new)"),
        [{"old": old, "new": new} for old, new in old_to_new],
    )
    place = f"{SCHEMA}." if is_postgresql else ""
    rows = sum(
        connection.execute(
            text(
                f"UPDATE {place}{table.name} SET subject ="
                " (SELECT new FROM rekeyed WHERE old = subject)"
                " WHERE subject IN (SELECT old FROM rekeyed)"
            )
        ).rowcount
        for table in tables
    )
    connection.execute(text("DROP TABLE rekeyed"))
    return rows


def _rename(
    connection: Connection, table: Table, name: str, lookups: Sequence[bytes] | None = None
) -> int:
    """Give what waits for a destination the pseudonyms that its people have there now."""
    label = pseudonyms.epochs(connection).label(name)
    query = (
        select(table.c.lookup)
        .distinct()
        .where(table.c.destination == name, table.c.lookup.is_not(None))
    )
    if lookups is not None:
        query = query.where(table.c.lookup.in_(lookups))
    waiting = [bytes(each) for each in connection.execute(query).scalars()]
    rows = 0
    for start in range(0, len(waiting), _AT_ONCE):
        for person in people_of(connection, waiting[start : start + _AT_ONCE]):
            if not person.key:
                continue
            which = (table.c.destination == name) & (table.c.lookup == person.lookup)
            subject = privacy.pseudonym(person.key, label)
            rows += connection.execute(update(table).where(which).values(subject=subject)).rowcount
    return rows


def _veil(connection: Connection, table: Table, pepper: bytes) -> int:
    """Whatever leads to people in this table, under the pepper."""
    query = select(table.c.lookup).distinct().where(table.c.lookup.is_not(None))
    found = [bytes(each) for each in connection.execute(query).scalars()]
    statement = (
        update(table).where(table.c.lookup == bindparam("old")).values(lookup=bindparam("new"))
    )
    for start in range(0, len(found), _AT_ONCE):
        connection.execute(
            statement,
            [
                {"old": each, "new": privacy.veiled(pepper, each)}
                for each in found[start : start + _AT_ONCE]
            ],
        )
    return len(found)


_KEY = (
    update(subjects).where(subjects.c.lookup == bindparam("lookup_")).values(key=bindparam("key"))
)
