"""Whose the items of a transaction are: pseudonyms, decisions about consent, sessions of users."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, select, update

from pbmon import privacy
from pbmon.spool.entries import Consent, Link
from pbmon.store import schema
from pbmon.store.tables import consents, meta, sessions, subjects

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pbmon.store.writer import Batch

STORE = "store"
"""The destination that the store's own pseudonyms are made for."""

META = select(meta.c.value).where(meta.c.key == bindparam("key"))


def pepper(connection: Connection, given: bytes | None) -> bytes:
    """Of the HMACs by which people are found: as given, else the store's own."""
    if given is not None:
        return given
    return bytes.fromhex(connection.execute(META, {"key": "pepper"}).scalar_one())


class Person(NamedTuple):
    """A user as the store knows them; subject: their pseudonym, none where no key is known."""

    subject: bytes | None
    is_deleted: bool = False
    analytics: bool | None = None
    sharing: bool | None = None
    lookup: bytes = b""
    key: bytes = b""


NOBODY = Person(None)


class People:
    """Of one transaction of the writer."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._links: list[tuple[str, Link]] = []
        self._consents: list[tuple[str, Consent]] = []
        self.found: dict[str, Person] = {}
        """User id → as the store knows them; those whom the writer did not remember."""

    def add(self, source: str, entry: Link | Consent) -> None:
        if isinstance(entry, Link):
            self._links.append((source, entry))
        else:
            self._consents.append((source, entry))

    def find(self, connection: Connection, named: Sequence[tuple[str, bool | None]]) -> None:
        """Of whom something is to be stored, with what the calls said of their consent; they are
        made known where they have to be."""
        wanted = {user for user, _ in named}
        wanted.update(link.user_id for _, link in self._links)
        if not wanted:
            return
        writer = self._batch.writer
        version = connection.execute(META, {"key": schema.PEOPLE_VERSION}).scalar()
        if version != writer.people_version:
            writer.people.clear()
            writer.people_version = version
        lookups = {writer.lookup(user): user for user in wanted if user not in writer.people}
        self.found = self._ask(connection, lookups)
        agreed = {user for user, consent in named if consent}
        fresh = [
            {"lookup": lookup, "key": secrets.token_bytes(32), "created_at": self._batch.now}
            for lookup, user in sorted(lookups.items())
            if user not in self.found and (user in agreed or writer.basis != "opt-in")
        ]
        if fresh:
            connection.execute(writer.adding[subjects], fresh)
            self.found = self._ask(connection, lookups)

    def _ask(self, connection: Connection, lookups: Mapping[bytes, str]) -> dict[str, Person]:
        if not lookups:
            return {}
        found = connection.execute(_PEOPLE, {"lookups": list(lookups)})
        return {
            lookups[bytes(lookup)]: Person(
                privacy.pseudonym(bytes(key), STORE) if key is not None else None,
                deleted_at is not None,
                analytics,
                sharing,
                bytes(lookup),
                bytes(key or b""),
            )
            for lookup, key, deleted_at, analytics, sharing in found
        }

    def person(self, user_id: str) -> Person:
        return self.found.get(user_id) or self._batch.writer.people.get(user_id, NOBODY)

    def may_keep(self, person: Person, consent: bool | None) -> bool:
        if consent is not None:
            return consent
        if person.analytics is not None:
            return person.analytics
        return self._batch.writer.basis != "opt-in"

    def store_consents(self, connection: Connection) -> None:
        for source, decision in self._consents:
            lookup = self._batch.writer.lookup(decision.user_id)
            connection.execute(
                self._batch.writer.adding[subjects],
                {"lookup": lookup, "key": secrets.token_bytes(32), "created_at": self._batch.now},
            )
            changed = connection.execute(
                update(subjects)
                .where(subjects.c.lookup == lookup, subjects.c.deleted_at.is_(None))
                .values({decision.purpose: decision.granted})
            )
            if changed.rowcount != 1:
                self._batch.drop(source, "deleted")
                continue
            connection.execute(
                consents.insert(),
                {"lookup": lookup, "purpose": decision.purpose, "granted": decision.granted,
                 "decided_at": decision.occurred_at},
            )  # fmt: skip
            self._batch.keep(source)
        if self._consents:
            schema.note_change_of_people(connection)

    def store_links(self, connection: Connection) -> None:
        for source, link in self._links:
            person = self.person(link.user_id)
            if person.is_deleted or not self.may_keep(person, None) or person.subject is None:
                self._batch.drop(source, "deleted" if person.is_deleted else "consent")
                continue
            connection.execute(
                self._batch.writer.adding[sessions],
                {
                    "session": self._batch.writer.session(link.session_id),
                    "subject": person.subject,
                    "linked_at": link.occurred_at,
                },
            )
            self._batch.keep(source)

    def may_share(self, person: Person) -> bool:
        if person.sharing is not None:
            return person.sharing
        return self._batch.writer.sharing != "opt-in"


_PEOPLE = select(
    subjects.c.lookup,
    subjects.c.key,
    subjects.c.deleted_at,
    subjects.c.analytics,
    subjects.c.sharing,
).where(subjects.c.lookup.in_(bindparam("lookups", expanding=True)))
