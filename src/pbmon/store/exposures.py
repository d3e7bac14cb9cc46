"""The book of exposures: of each experiment a person's first variant, whichever comes in first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, or_

from pbmon.spool.entries import Exposure
from pbmon.store.tables import exposures

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pbmon.store.writer import Batch


class _Row(NamedTuple):
    """Of `exposures`, in the order of its columns."""

    experiment: str
    subject: bytes
    variant: str
    exposed_at: int
    assigned_by: str
    crossed: bool = False

    def joined(self, other: _Row) -> _Row:
        """One row of two; the earlier one wins, of two at the same time this one."""
        first = other if other.exposed_at < self.exposed_at else self
        differs = self.variant != other.variant
        return first._replace(crossed=self.crossed or other.crossed or differs)


class Exposures:
    """The store.writer.Book of exposures. One that says nothing new is stored all the same: the
    row that is there says it."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._items: list[tuple[str, Exposure]] = []

    def add(self, source: str, key: bytes, entry: Exposure, *, again: bool) -> None:
        self._items.append((source, entry))

    def people(self) -> Iterable[tuple[str, bool | None]]:
        return [
            (entry.user_id, entry.consent) for _, entry in self._items if entry.user_id is not None
        ]

    def store(self, connection: Connection) -> None:
        rows: dict[tuple[str, bytes], _Row] = {}
        for source, entry in self._items:
            subject = self._subject(source, entry)
            if subject is None:
                continue
            self._batch.keep(source)
            row = _Row(
                entry.experiment, subject, entry.variant, entry.occurred_at, entry.assigned_by
            )
            known = rows.get(row[:2])
            rows[row[:2]] = row if known is None else known.joined(row)
        if rows:
            # In one order in every transaction: two of them never wait for each other.
            values = [row._asdict() for _, row in sorted(rows.items())]
            # RETURNING makes SQLAlchemy send many rows in one statement.
            joining = _joining(self._batch.writer.insert(exposures))
            connection.execute(joining.returning(exposures.c.crossed), values).all()

    def _subject(self, source: str, entry: Exposure) -> bytes | None:
        """The pseudonym; none for somebody of whom nothing may be kept."""
        writer = self._batch.writer
        if entry.user_id is None:
            # Nobody can have agreed for a session but in the call itself.
            if entry.session_id is not None and (entry.consent or writer.basis != "opt-in"):
                return writer.session(entry.session_id)
            self._batch.drop(source, "consent")
            return None
        person = self._batch.people.person(entry.user_id)
        if person.is_deleted:
            self._batch.drop(source, "deleted")
            return None
        if (
            not self._batch.people.may_keep(person, entry.consent, entry.occurred_at)
            or person.subject is None
        ):
            self._batch.drop(source, "consent")
            return None
        return person.subject


def _joining(add: Any) -> Any:
    """The statement that does with the row that is there as _Row.joined()."""
    there, new = exposures.c, add.excluded
    is_earlier = new.exposed_at < there.exposed_at
    first = {
        name: case((is_earlier, new[name]), else_=there[name])
        for name in ("variant", "exposed_at", "assigned_by")
    }
    crossed = or_(there.crossed, new.crossed, new.variant != there.variant)
    return add.on_conflict_do_update(
        index_elements=["experiment", "subject"], set_={**first, "crossed": crossed}
    )
