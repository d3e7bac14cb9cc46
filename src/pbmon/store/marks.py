"""Marks of what changed and when: releases that were deployed, and what somebody noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, String, and_, exists, func, literal, or_, select

from pbmon import catalog
from pbmon.runtime import Figure
from pbmon.store import schema
from pbmon.store.tables import insert_of, marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Select

DEPLOY, CHANGE = catalog.MARK_KIND.values

MAX_NAME, MAX_NOTE = 200, 500
"""Characters."""

PATIENCE = schema.HOUR // 2
"""µs after a release's mark in which processes give it no other one: while two releases run side by
side, whoever leads may change often."""

EXPORTED = 20
"""The newest of them are metrics: each release is a series, and there is no end to them."""


class Mark(NamedTuple):
    """kind: deploy or change. at: µs since the epoch, UTC."""

    kind: str
    name: str
    at: int
    note: str | None


class Deployment(NamedTuple):
    """A deploy's mark, and those of the deploys before and after it."""

    mark: Mark
    before: Mark | None
    after: Mark | None


def note_release(connection: Connection, release: str, age: int) -> Mark | None:
    """Note that a release was deployed, as its process sees it; the mark if that was new.

    age: µs for which the process's code is loaded, and so since when the release runs. It is new
    where another release was the newest before that time, and the next one after it is another
    too: a release that comes back is deployed again, and a process that is left over from an older
    one deploys nothing. Within PATIENCE of a release's mark there is no second one.
    """
    now = schema.clock(connection)
    recent = exists().where(
        marks.c.kind == DEPLOY, marks.c.name == release, marks.c.at > now - PATIENCE
    )
    return _deploy(connection, Mark(DEPLOY, release, now - age, None), ~recent)


def deploy(connection: Connection, release: str, at: int, note: str | None) -> bool:
    """Note that a release was deployed, as somebody says it; whether that was new. It is not where
    the deploy before or after that time is of the same release: that one has the note then."""
    if _deploy(connection, Mark(DEPLOY, release, at, note)) is not None:
        return True
    found = deployment(connection, release)
    if note is not None and found is not None:
        connection.execute(
            marks.update()
            .where(marks.c.kind == DEPLOY, marks.c.name == release, marks.c.at == found.mark.at)
            .values(note=note)
        )
    return False


def _deploy(connection: Connection, mark: Mark, *conditions: ColumnElement[bool]) -> Mark | None:
    """In one statement, so that it is noted once by however many."""
    beside = [
        func.coalesce(query.with_only_columns(marks.c.name).scalar_subquery(), "") != mark.name
        for query in _beside(mark)
    ]
    row = select(
        literal(mark.kind, String),
        literal(mark.name, String),
        literal(mark.at, BigInteger),
        literal(mark.note, String),
    ).where(*beside, *conditions)
    add = insert_of(connection.engine)(marks).from_select(list(Mark._fields), row)
    noted = connection.execute(add.on_conflict_do_nothing().returning(marks.c.at)).first()
    return mark if noted is not None else None


def _beside(mark: Mark) -> Iterator[Select[Any]]:
    """The deploy before it, and the one after it."""
    at, name = marks.c.at, marks.c.name
    earlier = or_(at < mark.at, and_(at == mark.at, name < mark.name))
    later = or_(at > mark.at, and_(at == mark.at, name > mark.name))
    for when, order in ((earlier, _NEWEST), (later, (at, name))):
        yield select(marks).where(marks.c.kind == DEPLOY, when).order_by(*order).limit(1)


_NEWEST = (marks.c.at.desc(), marks.c.name.desc())


def change(connection: Connection, text: str, at: int, note: str | None) -> bool:
    """Note that something was changed; whether that was new."""
    add = insert_of(connection.engine)(marks).on_conflict_do_nothing().returning(marks.c.at)
    row = Mark(CHANGE, text, at, note)._asdict()
    return connection.execute(add, row).first() is not None


def newest(connection: Connection, limit: int) -> list[Mark]:
    query = select(marks).order_by(*_NEWEST, marks.c.kind).limit(limit)
    return [Mark(*row) for row in connection.execute(query)]


def deployment(connection: Connection, release: str | None = None) -> Deployment | None:
    """The newest of a release, or of all."""
    query = select(marks).where(marks.c.kind == DEPLOY)
    if release is not None:
        query = query.where(marks.c.name == release)
    found = connection.execute(query.order_by(*_NEWEST).limit(1)).first()
    if found is None:
        return None
    mark = Mark(*found)
    beside = [connection.execute(query).first() for query in _beside(mark)]
    before, after = (Mark(*row) if row is not None else None for row in beside)
    return Deployment(mark, before, after)


def figures(connection: Connection) -> Iterator[Figure]:
    """When each was that is exported; of those of one name the newest."""
    at = func.max(marks.c.at)
    query = select(marks.c.kind, marks.c.name, at).group_by(marks.c.kind, marks.c.name)
    for kind, name, when in connection.execute(query.order_by(at.desc()).limit(EXPORTED)):
        attributes = {catalog.MARK_KIND.name: kind, catalog.MARK_NAME.name: name}
        yield Figure(catalog.MARK_TIME, when / 1e6, attributes)
