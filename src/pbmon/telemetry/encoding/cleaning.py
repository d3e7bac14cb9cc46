"""People's data taken out of the texts of spans and log records before they are encoded.

An application's own spans, logs and other libraries' instrumentation write what they like. Names of
attributes stay, and numbers: they are the application's vocabulary and its measurements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pbmon import privacy, scrubbing
from pbmon.telemetry.encoding import standins

# As servers write what was asked for. The fragment of a URL stays in the browser.
_QUERY = re.compile(r"(/[^\s\"'<>?]*\?)([^\s\"'<>#]+)")

_SHORT = 200
"""Characters of a text that may come again: a route, a statement, a constant message."""


def clean_span(span: standins.Span) -> None:
    span.name = _text(span.name)
    _clean(span.attributes)
    status = span.status
    if status is not None and status.description:
        description = _text(status.description)
        if description is not status.description:
            span.status = standins.Status(status.status_code, description)
    if span.events:
        span.events = [_event(event) for event in span.events]
    if any(link.attributes for link in span.links):
        span.links = [_link(link) for link in span.links]


def clean_log(record: standins.Log) -> None:
    record.body = _value(record.body)
    _clean(record.attributes)


def _event(event: Any) -> Any:
    attributes = dict(event.attributes or {})
    changed = _clean(attributes)
    name = _text(event.name)
    if not changed and name is event.name:
        return event
    return standins.Event(name, event.timestamp, attributes, event.dropped_attributes)


def _link(link: Any) -> Any:
    attributes = dict(link.attributes or {})
    if not _clean(attributes):
        return link
    return standins.Link(link.context, attributes, link.dropped_attributes)


def _clean(attributes: dict[str, Any]) -> bool:
    """In place; whether anything was taken out."""
    changed = {}
    for key, value in attributes.items():
        cleaned = _value(value)
        if cleaned is not value:
            changed[key] = cleaned
    attributes.update(changed)
    return bool(changed)


def _value(value: Any) -> Any:
    """The value itself where there is nothing to take out."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        made = [_value(each) for each in value]
        return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
    if isinstance(value, dict):
        copy = dict(value)
        return copy if _clean(copy) else value
    return value


def _text(text: str) -> str:
    found = _known(text) if len(text) <= _SHORT else _scrubbed(text)
    return text if found is None else found


def _scrubbed(text: str) -> str | None:
    """None: there is nothing to take out."""
    scrubbed = text
    if "?" in text:
        scrubbed = _QUERY.sub(lambda found: found[1] + privacy.mask_query(found[2]), text)
    if scrubbing.is_suspect(scrubbed):
        scrubbed = scrubbing.scrub(scrubbed, scrubbing.OF_PEOPLE)
    return None if scrubbed == text else scrubbed


_known = lru_cache(4096)(_scrubbed)
