"""Whose the items of a transaction are: pseudonyms, decisions about consent, sessions of users."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select, update

from pbmon import privacy
from pbmon.purposes import ANALYTICS, PURPOSES, SHARING, Decision
from pbmon.spool.entries import Consent, Link
from pbmon.store import schema
from pbmon.store.pseudonyms import STORE
from pbmon.store.tables import consents, dead_letters, deliveries, sessions, subjects

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pbmon.store.writer import Batch


class Person(NamedTuple):
    """A user as the store knows them; subject: their pseudonym, none where no key is known."""

    subject: bytes | None
    is_deleted: bool = False
    analytics: Decision | None = None
    sharing: Decision | None = None
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

    @property
    def are_to_change(self) -> bool:
        """Whether what the store says of anybody may be another one afterwards."""
        return bool(self._consents)

    def find(self, connection: Connection, named: Sequence[tuple[str, bool | None]]) -> None:
        """Of whom something is to be stored, with what the calls said of their consent; they are
        made known where they have to be."""
        wanted = {user for user, _ in named}
        wanted.update(link.user_id for _, link in self._links)
        if not wanted:
            return
        writer = self._batch.writer
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
        return {lookups[each.lookup]: each for each in people_of(connection, lookups)}

    def person(self, user_id: str) -> Person:
        return self.found.get(user_id) or self._batch.writer.people.get(user_id, NOBODY)

    def may_keep(self, person: Person, consent: bool | None, at: int) -> bool:
        """Whether what this person did at that time may be kept; consent: what the call said."""
        terms = self._batch.writer.terms[ANALYTICS]
        return not person.is_deleted and terms.may(person.analytics, at, consent)

    def may_share(self, person: Person, at: int) -> bool:
        """Likewise, whether it may go to destinations."""
        return self._batch.writer.terms[SHARING].may(person.sharing, at)

    # --- decisions ---

    def store_consents(self, connection: Connection) -> None:
        if not self._consents:
            return
        writer = self._batch.writer
        lookups = {each.user_id: writer.lookup(each.user_id) for _, each in self._consents}
        connection.execute(
            writer.adding[subjects],
            [
                {"lookup": lookup, "key": secrets.token_bytes(32), "created_at": self._batch.now}
                for lookup in sorted(set(lookups.values()))
            ],
        )
        known = {each.lookup: each for each in people_of(connection, set(lookups.values()))}
        said = [
            (source, decision, known[lookups[decision.user_id]])
            for source, decision in self._consents
        ]
        for source, _, person in said:
            if person.is_deleted:
                self._batch.drop(source, "deleted")
            else:
                self._batch.keep(source)
        told = [(each, person.lookup) for _, each, person in said if not person.is_deleted]
        self._decide(connection, told, known)
        writer.recall(connection, schema.note_change_of_people(connection))

    def _decide(
        self,
        connection: Connection,
        said: Sequence[tuple[Consent, bytes]],
        known: Mapping[bytes, Person],
    ) -> None:
        if not said:
            return
        now, terms = self._batch.now, self._batch.writer.terms
        words = {
            (lookup, purpose): getattr(known[lookup], purpose)
            for _, lookup in said
            for purpose in PURPOSES
        }
        before = dict(words)
        for decision, lookup in said:
            of = (lookup, decision.purpose)
            # A clock that is ahead must not keep later decisions from counting.
            at = min(decision.occurred_at, now)
            words[of] = terms[decision.purpose].follow(
                words[of], decision.granted, at, decision.version
            )
        connection.execute(
            consents.insert(),
            [
                {
                    "lookup": lookup, "purpose": decision.purpose, "granted": decision.granted,
                    "decided_at": decision.occurred_at, "version": decision.version,
                    "stored_at": now,
                }
                for decision, lookup in said
            ],
        )  # fmt: skip
        for lookup, purpose in sorted(of for of in words if words[of] != before[of]):
            word = words[lookup, purpose]
            connection.execute(
                update(subjects).where(subjects.c.lookup == lookup).values(_columns(purpose, word))
            )
            if word.withdrawn_at is not None:
                let_go(connection, lookup, None if not word.granted else word.since)

    # --- sessions ---

    def store_links(self, connection: Connection) -> None:
        for source, link in self._links:
            person = self.person(link.user_id)
            may = self.may_keep(person, None, link.occurred_at) and person.subject is not None
            if not may:
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


def people_of(connection: Connection, lookups: Iterable[bytes]) -> list[Person]:
    """Those of them who are known."""
    wanted = list(lookups)
    if not wanted:
        return []
    return [
        Person(
            privacy.pseudonym(bytes(row.key), STORE) if row.key is not None else None,
            row.deleted_at is not None,
            _decision(row, ANALYTICS),
            _decision(row, SHARING),
            bytes(row.lookup),
            bytes(row.key or b""),
        )
        for row in connection.execute(_PEOPLE, {"lookups": wanted})
    ]


def let_go(connection: Connection, lookup: bytes, before: int | None) -> None:
    """What waits for destinations of this person, dead letters as well; before: only what occurred
    earlier."""
    for table in (deliveries, dead_letters):
        which = table.c.lookup == lookup
        if before is not None:
            which &= table.c.occurred_at < before
        connection.execute(table.delete().where(which))


def _decision(row: Any, purpose: str) -> Decision | None:
    granted, at, version, since, withdrawn_at = (getattr(row, name) for name in _NAMES[purpose])
    if granted is None:
        return None
    return Decision(granted, at or 0, version, since or 0, withdrawn_at)


def _columns(purpose: str, word: Decision) -> dict[str, Any]:
    return dict(zip(_NAMES[purpose], word, strict=True))


_NAMES = {
    purpose: (
        purpose, f"{purpose}_at", f"{purpose}_version", f"{purpose}_since",
        f"{purpose}_withdrawn_at",
    )
    for purpose in PURPOSES
}  # fmt: skip
"""Purpose → columns of `subjects`, in the order of a Decision's fields."""

FORGOTTEN: Mapping[str, None] = dict.fromkeys(
    ("key", *(name for names in _NAMES.values() for name in names))
)
"""What a tombstone no longer has."""

_PEOPLE = select(
    subjects.c.lookup,
    subjects.c.key,
    subjects.c.deleted_at,
    *(subjects.c[name] for names in _NAMES.values() for name in names),
).where(subjects.c.lookup.in_(bindparam("lookups", expanding=True)))
