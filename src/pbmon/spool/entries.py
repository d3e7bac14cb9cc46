"""What the journal's items say: the one place known to those who write them and who read them.

An item is a line of JSON, an array whose first element is its kind; a kind's elements keep their
places for ever, and new ones are added behind. An event's properties are a second line, which
nobody on the way needs to read. An item of an unknown kind is of a newer version.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from json.encoder import encode_basestring as _quoted
from typing import Any, NamedTuple


class Event(NamedTuple):
    """Something a person or the application did. Ids are the application's own."""

    occurred_at: int
    """µs since the epoch, UTC."""
    name: str
    user_id: str | None
    session_id: str | None
    trace_id: str | None
    """32 hexadecimal digits."""
    consent: bool | None
    """True: not to be asked for again. None: to be decided where the event is stored."""
    event_id: str | None
    """The application's id, by which the event is stored once."""
    segments: Mapping[str, str] | None
    properties: str | None
    """A JSON object."""


class Link(NamedTuple):
    """A session turned out to be this user's."""

    occurred_at: int
    session_id: str
    user_id: str


class Consent(NamedTuple):
    """A person's decision."""

    occurred_at: int
    user_id: str
    purpose: str
    granted: bool
    version: str | None = None
    """Of the text that they agreed to."""


class Transaction(NamedTuple):
    """Money that came, went back or was corrected."""

    at: int
    """When it was said, µs since the epoch, UTC."""
    kind: str
    """charge, refund, chargeback or adjustment."""
    key: str
    """The application's id, by which it is booked once among those of its kind."""
    charge: str | None
    """Of a refund or chargeback: the key of the charge."""
    status: str
    amount_minor: int
    """Minor units; negative only for an adjustment."""
    currency: str
    exponent: int
    """Decimal places of the minor unit, as they were when it was said."""
    occurred_at: int
    segments: Mapping[str, str] | None
    user_id: str | None


class Exposure(NamedTuple):
    """A person met a variant of an experiment: a user, or one who is known by a session only."""

    occurred_at: int
    experiment: str
    variant: str
    user_id: str | None
    session_id: str | None
    assigned_by: str
    """Who chose the variant: pbmon, application or openfeature."""
    consent: bool | None = None
    """As of an Event."""


class Feedback(NamedTuple):
    """An answer to a survey. Ids are the application's own."""

    occurred_at: int
    survey: str
    score: int | None
    comment: str | None
    """Scrubbed."""
    user_id: str | None
    session_id: str | None
    trace_id: str | None
    consent: bool | None
    """As of an Event."""
    feedback_id: str | None
    """The application's id, by which it is stored once for one person."""
    segments: Mapping[str, str] | None


class Failure(NamedTuple):
    """An exception that nobody handled, or that track_error() was given; or several of one
    fingerprint."""

    occurred_at: int
    """Of the last of them."""
    fingerprint: str
    """32 hexadecimal digits, of the type and the innermost frame of the application."""
    error_type: str
    place: str
    """That frame: module and function, or what says it best."""
    errors: int
    """How many, from 1."""
    handled: bool
    """Given to track_error()."""
    route: str | None
    release: str | None
    frames: str | None
    """As of privacy.frames(); of the first of a fingerprint in a process."""
    user_id: str | None
    session_id: str | None
    trace_id: str | None


Entry = Event | Link | Consent | Transaction | Exposure | Feedback | Failure

RETURNS = ("refund", "chargeback")
"""Kinds that belong to a charge."""

_STATUSES: Mapping[str, tuple[str, ...]] = {
    "charge": ("pending", "completed", "failed", "cancelled"),
    **dict.fromkeys((*RETURNS, "adjustment"), ("completed",)),
}
_KINDS: dict[str, type[Any]] = {
    "event": Event, "link": Link, "consent": Consent, "transaction": Transaction,
    "exposure": Exposure, "feedback": Feedback, "failure": Failure,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}
_PROPERTIES = len(Event._fields)
"""The place that they would have in an event's array, behind its kind."""
_MAX_EXPONENT = 8
_NUL = rb"\u0000"
# Behind an even number of backslashes: another one would make it a text of six characters.
_NUL_ESCAPED = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_ID = re.compile("[0-9a-f]{32}")
_read = json.JSONDecoder().raw_decode


class UnreadableError(ValueError):
    """No item that this version knows."""


def _plain(value: Any) -> Any:
    """What JSON has no type for, and everybody writes as text."""
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"of type {type(value).__name__}")


_encoder = json.JSONEncoder(
    ensure_ascii=False,
    check_circular=False,
    allow_nan=False,
    separators=(",", ":"),
    default=_plain,
)
_json: Callable[[Any], str] = _encoder.encode
if (_make := getattr(json.encoder, "c_make_encoder", None)) is not None:
    # What encode() makes anew for each call, which takes as long as the encoding.
    _parts = _make(None, _plain, _quoted, None, ":", ",", False, False, False)

    def _json(value: Any) -> str:
        return "".join(_parts(value, 0))


def encode_event(
    occurred_at: int,
    name: str,
    user_id: str | None,
    session_id: str | None,
    trace_id: str | None,
    consent: bool | None,
    event_id: str | None,
    segments: Mapping[str, str] | None,
    properties: Mapping[str, Any] | None,
) -> bytes:
    """The fields of Event, but for the properties as they are.

    Raises TypeError for a value that JSON has no place for, ValueError for one that is no number
    (NaN) or has no end. A lone surrogate becomes a question mark.
    """
    try:
        head = (
            f'["event",{occurred_at},{_quoted(name)},{_quoted(user_id) if user_id else "null"},'
            f"{_quoted(session_id) if session_id else 'null'},"
            f"{f'{chr(34)}{trace_id}{chr(34)}' if trace_id else 'null'},"
            f"{'null' if consent is None else 'true' if consent else 'false'},"
            f"{_quoted(event_id) if event_id else 'null'},"
            f"{_json(segments) if segments else 'null'}]\n"
        )
        text = head + _json(properties) if properties else head
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return text.encode("utf-8", "replace")


def encode(entry: Link | Consent | Transaction | Exposure | Feedback | Failure) -> bytes:
    return _json((_NAMES[type(entry)], *entry)).encode("utf-8", "replace")


def decode(payload: bytes) -> Entry:
    """Raises UnreadableError."""
    if _NUL in payload:  # no database takes this character in a text
        payload = _NUL_ESCAPED.sub(rb"\1\\ufffd", payload)
    line, _, properties = payload.partition(b"\n")
    try:
        head = line.decode()
        array, end = _read(head)
        if end != len(head) or not isinstance(array, list):
            raise UnreadableError("no item")
        if array[0] == "event":
            return Event._make((*array[1:_PROPERTIES], properties.decode() or None))
        made = _KINDS[array[0]]
        entry: Entry = made(*array[1 : len(made._fields) + 1])
        if isinstance(entry, Transaction) and not _is_sound(entry):
            raise UnreadableError("no transaction")
        if isinstance(entry, Failure) and not _is_whole(entry):
            raise UnreadableError("no failure")
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UnreadableError("no item that this version knows") from None
    return entry


def _is_sound(entry: Transaction) -> bool:
    """Whether it can be booked: what is added up must not depend on who wrote it down."""
    numbers = (entry.at, entry.amount_minor, entry.exponent, entry.occurred_at)
    return (
        all(type(number) is int for number in numbers)
        and isinstance(entry.key, str)
        and isinstance(entry.currency, str)
        and (entry.user_id is None or isinstance(entry.user_id, str))
        and (entry.segments is None or isinstance(entry.segments, Mapping))
        and isinstance(entry.charge, str) == (entry.kind in RETURNS)
        and entry.status in _STATUSES[entry.kind]
        and (entry.amount_minor >= 0 or entry.kind == "adjustment")
        and 0 <= entry.exponent <= _MAX_EXPONENT
    )


def _is_whole(entry: Failure) -> bool:
    """Whether it can be counted."""
    ids = (entry.fingerprint, *((entry.trace_id,) if entry.trace_id is not None else ()))
    texts = (entry.route, entry.release, entry.frames, entry.user_id, entry.session_id)
    return (
        all(isinstance(each, str) and _ID.fullmatch(each) for each in ids)
        and isinstance(entry.error_type, str)
        and isinstance(entry.place, str)
        and all(each is None or isinstance(each, str) for each in texts)
        and type(entry.occurred_at) is int
        and type(entry.errors) is int
        and entry.errors > 0
    )
