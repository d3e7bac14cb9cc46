"""What the store holds of a person, as one value of JSON."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    and_,
    select,
)  # fmt: skip

from pbmon import privacy
from pbmon.erasure import EXPORT_FORMAT
from pbmon.moments import rfc3339
from pbmon.store import pseudonyms, schema, tables
from pbmon.store.holdings import HELD, Held
from pbmon.store.sweeping import parts, sessions_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

_INTERNAL = {tables.deletions, tables.subjects}
"""What of them concerns the person stands at the top."""
_UUIDS = ("event_id",)
_HIDDEN = ("subject", "lookup", "body_hash")


def of_person(
    connection: Connection, user_id: str, sharing: str, pepper: bytes | None = None
) -> dict[str, Any]:
    """sharing: legal basis of that purpose. pepper: from outside, where there is one. In the form
    that `schema_of_export()` describes."""
    lookup = pseudonyms.names(connection, pepper, 1).user(user_id)
    person = connection.execute(
        select(tables.subjects).where(tables.subjects.c.lookup == lookup)
    ).one_or_none()
    key = bytes(person.key) if person is not None and person.key is not None else None
    subject = privacy.pseudonym(key, pseudonyms.STORE) if key is not None else None
    return {
        "format": EXPORT_FORMAT,
        "user_id": user_id,
        "made_at": _moment(schema.now()),
        "known": person is not None,
        "known_since": _moment(person.created_at) if person is not None else None,
        "deleted_at": _moment(person.deleted_at) if person is not None else None,
        "consent": {
            purpose: getattr(person, purpose) if person is not None else None
            for purpose in ("analytics", "sharing")
        },
        "destinations": list(_destinations(connection, lookup, key, sharing)),
        "tables": {
            held.table.name: list(_rows(connection, held, lookup, subject))
            for held in HELD
            if held.table not in _INTERNAL
        },
    }


def _destinations(
    connection: Connection, lookup: bytes, key: bytes | None, sharing: str
) -> Iterator[dict[str, str]]:
    """That may have got events of the person, and as whom they know them."""
    known = tables.consents.c
    agreed = select(known.id).where(
        known.lookup == lookup, known.purpose == "sharing", known.granted
    )
    if key is None or (sharing == "opt-in" and connection.execute(agreed).first() is None):
        return
    got = tables.destinations.c
    query = select(got.destination).where(got.delivered > 0).order_by(got.destination)
    epochs = pseudonyms.epochs(connection)
    for name in connection.execute(query).scalars():
        for label in epochs.labels(name):
            yield {"name": name, "pseudonym": privacy.pseudonym(key, label).hex()}


def _rows(
    connection: Connection, held: Held, lookup: bytes, subject: bytes | None
) -> Iterator[dict[str, Any]]:
    for mine in _mine(connection, held, lookup, subject):
        columns = exported(held)
        query = select(*columns).where(mine).order_by(*held.table.primary_key.columns)
        for row in connection.execute(query):
            yield {
                column.name: _value(column, value)
                for column, value in zip(columns, row, strict=True)
            }


def _mine(
    connection: Connection, held: Held, lookup: bytes, subject: bytes | None
) -> Iterator[ColumnElement[bool]]:
    """Conditions, each of other rows: those that a deletion finds."""
    if held.lookup is not None:
        yield held.lookup == lookup
    if held.subject is None or subject is None:
        return
    yield held.subject == subject
    if held.by_session or held.session is not None:
        for part in parts(sessions_of(connection, subject)):
            yield (
                held.subject.in_(part)
                if held.session is None
                else and_(held.session.in_(part), held.subject.is_(None))
            )


def exported(held: Held) -> list[Column[Any]]:
    """All columns but those that lead to a person: here it is clear to whom."""
    return [column for column in held.table.columns if column.name not in _HIDDEN]


def _value(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, LargeBinary):
        return str(uuid.UUID(bytes=bytes(value))) if column.name in _UUIDS else bytes(value).hex()
    if _is_moment(column):
        return _moment(value)
    return value.isoformat() if isinstance(value, dt.date) else value


def _is_moment(column: Column[Any]) -> bool:
    return isinstance(column.type, BigInteger) and column.name.endswith("_at")


def _moment(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


# --- its form ---


def schema_of_export() -> dict[str, Any]:
    """JSON Schema (2020-12) of what of_person() gives."""
    moment = {"type": ["string", "null"], "format": "date-time"}
    agreed = {"type": ["boolean", "null"]}
    text = {"type": "string"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What pbmon holds of a person",
        **_object(
            {
                "format": {"const": EXPORT_FORMAT},
                "user_id": text,
                "made_at": {"type": "string", "format": "date-time"},
                "known": {"type": "boolean"},
                "known_since": moment,
                "deleted_at": moment,
                "consent": _object({"analytics": agreed, "sharing": agreed}),
                "destinations": _list(_object({"name": text, "pseudonym": text})),
                "tables": _object(
                    {
                        held.table.name: _list(
                            _object({column.name: _form(column) for column in exported(held)})
                        )
                        for held in HELD
                        if held.table not in _INTERNAL
                    }
                ),
            }
        ),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _form(column: Column[Any]) -> dict[str, Any]:
    form: dict[str, Any] = {}
    if isinstance(column.type, Boolean):
        kind = "boolean"
    elif _is_moment(column):
        kind, form = "string", {"format": "date-time"}
    elif isinstance(column.type, Integer):
        kind = "integer"
    else:
        kind = "object" if column.type is tables.Json else "string"
    return {"type": [kind, "null"] if column.nullable else kind, **form}
