"""What a capture has seen, as values that repeat and compare."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pbmon import catalog
from pbmon.gate.runs import Request

_MOST_NAMED = 20
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


@dataclass(frozen=True)
class SeenSpan:
    """One finished span. kind: SERVER, CLIENT …; status: UNSET, OK, ERROR; ids in hex."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str | None
    attributes: Mapping[str, Any]
    status: str
    start_ns: int
    duration_s: float
    events: tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True)
class SeenLog:
    """One log record of any logger. fields: the extra attributes it carried. trace_id, span_id: of
    the span in which it was made, in hex."""

    logger: str
    level: str
    message: str
    fields: Mapping[str, Any]
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True)
class SeenEvent:
    """One event of track() or track_feature(). Ids are your own, not yet pseudonyms. consent: True
    where it is not to be asked for again, None where the store is to decide."""

    name: str
    properties: Mapping[str, Any]
    user_id: str | None
    session_id: str | None
    consent: bool | None
    segments: Mapping[str, str]
    event_id: str | None
    trace_id: str | None


@dataclass(frozen=True)
class SeenRequest:
    """One HTTP request of a known route. duration_s: as budgets judge it. queries: the spans of its
    statements, in the order in which they ended."""

    method: str
    route: str
    duration_s: float
    failed: bool
    trace_id: str
    span_id: str
    queries: tuple[SeenSpan, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.method} {self.route}"

    def as_request(self, test: str | None = None) -> Request:
        """As a run file has it."""
        return Request(
            self.method, self.route, self.duration_s, self.failed, len(self.queries), test
        )


# --- from what the parts make ---


def span(made: Any) -> SeenSpan:
    """made: a ReadableSpan of the SDK."""
    return SeenSpan(
        name=made.name,
        kind=made.kind.name,
        trace_id=f"{made.context.trace_id:032x}",
        span_id=f"{made.context.span_id:016x}",
        parent_id=f"{made.parent.span_id:016x}" if made.parent else None,
        attributes=dict(made.attributes),
        status=made.status.status_code.name,
        start_ns=made.start_time,
        duration_s=(made.end_time - made.start_time) / 1e9,
        events=tuple((event.name, dict(event.attributes)) for event in made.events),
    )


def log(record: logging.LogRecord) -> SeenLog:
    """In the context in which it was made."""
    from opentelemetry import trace

    fields = {k: v for k, v in vars(record).items() if k not in _STANDARD}
    context = trace.get_current_span().get_span_context()
    ids: dict[str, str] = {}
    if context.is_valid:
        ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    ids |= {name: fields[name] for name in ("trace_id", "span_id") if fields.get(name)}
    return SeenLog(record.name, record.levelname, _message(record), fields, **ids)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that don't fit, which logging itself only tells of
        return str(record.msg)


def event(entry: Any) -> SeenEvent:
    """entry: of pbmon.spool.entries."""
    return SeenEvent(
        name=entry.name,
        properties=json.loads(entry.properties) if entry.properties else {},
        user_id=entry.user_id,
        session_id=entry.session_id,
        consent=entry.consent,
        segments=dict(entry.segments or {}),
        event_id=entry.event_id,
        trace_id=entry.trace_id,
    )


def is_query(span: SeenSpan) -> bool:
    return span.kind == "CLIENT" and catalog.DB_SYSTEM.name in span.attributes


def with_queries(
    requests: Iterable[tuple[Request, str, str]], spans: Iterable[SeenSpan]
) -> list[SeenRequest]:
    """requests: each with its trace and span. A statement is of the request whose span is the
    nearest around it; where a span between them is not here, of the first request of its trace."""
    spans = list(spans)
    known = {each.span_id: each for each in spans}
    noted = list(requests)
    owners = {span_id for _, _, span_id in noted}
    first: dict[str, str] = {}
    for _, trace_id, span_id in noted:
        first.setdefault(trace_id, span_id)
    queries: dict[str, list[SeenSpan]] = {}
    for each in spans:
        if not is_query(each):
            continue
        above = each.parent_id
        while above is not None and above not in owners:
            above = known[above].parent_id if above in known else first.get(each.trace_id)
        if above is not None:
            queries.setdefault(above, []).append(each)
    return [
        SeenRequest(
            request.method, request.route, request.duration_s, request.failed, trace_id, span_id,
            tuple(queries.get(span_id, ())),
        )
        for request, trace_id, span_id in noted
    ]  # fmt: skip


# --- looking one up ---


def only(what: str, wanted: str, found: list[Any], names: Iterable[str]) -> Any:
    """The one that was found; AssertionError that says what there is instead."""
    if len(found) == 1:
        return found[0]
    if found:
        raise AssertionError(f"{len(found)} {what}s are {wanted}; say more of the one you mean")
    there = list(dict.fromkeys(names))
    listed = ", ".join(map(repr, there[:_MOST_NAMED])) or "none"
    more = f" and {len(there) - _MOST_NAMED} more" if len(there) > _MOST_NAMED else ""
    raise AssertionError(f"no {what} is {wanted}; there are: {listed}{more}")


def has(attributes: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name in attributes and attributes[name] == value for name, value in wanted.items())


def words(name: str | None, wanted: Mapping[str, Any]) -> str:
    parts = [repr(name)] if name is not None else []
    return ", ".join([*parts, *(f"{key}={value!r}" for key, value in wanted.items())]) or "anything"
