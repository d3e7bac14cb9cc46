"""People's data taken out of the texts of spans and log records before they are encoded.

An application's own spans, logs and other libraries' instrumentation write what they like. Names of
attributes stay, and numbers: they are the application's vocabulary and its measurements. Keys of a
map within are texts. Of what is recorded of an exception the type and the frames stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pbmon import privacy, scrubbing
from pbmon.telemetry.encoding import standins

# As servers write what was asked for. The fragment of a URL stays in the browser.
_QUERY = re.compile(r"(/[^\s\"'<>?]*\?)([^\s\"'<>#]+)")

_MESSAGE, _STACK = "exception.message", "exception.stacktrace"
# As the SDK says why a span failed, and as Python and privacy.frames() write a frame.
_FAILED = re.compile(r"(\w*(?:Error|Exception|Exit|Group|Interrupt|Warning))\s*:")
_FRAME = re.compile(r'^[ |+-]*File "([^"\n]+)", line ([0-9]+)(?:, in ([^\n]+))?$', re.MULTILINE)
_OURS = re.compile(r".+:[0-9]+ in .+")

_SHORT = 200
"""Characters of a text that may come again: a route, a statement, a constant message."""


def clean_span(span: standins.Span) -> None:
    span.name = _text(span.name)
    _clean(span.attributes)
    status = span.status
    if status is not None and status.description:
        description = _text(_reason(status.description, span.events))
        if description is not status.description:
            span.status = standins.Status(status.status_code, description)
    if span.events:
        span.events = [_event(event) for event in span.events]
    span.context = _context(span.context)
    if any(link.attributes or link.context.trace_state for link in span.links):
        span.links = [_link(link) for link in span.links]


def clean_log(record: standins.Log) -> None:
    record.body = _value(record.body)
    if record.event_name:
        record.event_name = _text(record.event_name)
    _clean(record.attributes)


def _reason(description: str, events: Sequence[Any]) -> str:
    """Why a span failed, without the message of an exception."""
    for event in events:
        attributes = event.attributes or {}
        message, kind = attributes.get(_MESSAGE), attributes.get("exception.type")
        if not isinstance(kind, str):
            continue
        name = kind.rpartition(".")[2]
        if description.startswith(f"{name}:") or (
            message and isinstance(message, str) and message in description
        ):
            return name
    found = _FAILED.match(description)
    return found[1] if found else description


def _context(context: Any) -> Any:
    """Without what a caller's tracestate says of people."""
    state = context.trace_state
    if not state:
        return context
    kept = {name: value for name, value in state.items() if _text(value) is value}
    if len(kept) == len(state):
        return context
    return standins.Context(context.trace_id, context.span_id, context.is_remote, kept)


def _event(event: Any) -> Any:
    attributes = dict(event.attributes or {})
    changed = _clean(attributes)
    name = _text(event.name)
    if not changed and name is event.name:
        return event
    return standins.Event(name, event.timestamp, attributes, event.dropped_attributes)


def _link(link: Any) -> Any:
    attributes = dict(link.attributes or {})
    context = _context(link.context)
    if not _clean(attributes) and context is link.context:
        return link
    return standins.Link(context, attributes, link.dropped_attributes)


def _clean(attributes: dict[str, Any]) -> bool:
    """In place; whether anything was taken out."""
    has_exception = _MESSAGE in attributes or _STACK in attributes
    is_changed = has_exception and _clean_exception(attributes)
    changed = {}
    for key, value in attributes.items():
        cleaned = _value(value)
        if cleaned is not value:
            changed[key] = cleaned
    attributes.update(changed)
    return is_changed or bool(changed)


def _clean_exception(attributes: dict[str, Any]) -> bool:
    """Source lines and messages, which a stack trace has too, go; likewise."""
    there = _MESSAGE in attributes
    attributes.pop(_MESSAGE, None)
    stack = attributes.get(_STACK)
    if stack is None or (
        not there and isinstance(stack, str) and all(map(_OURS.fullmatch, stack.splitlines()))
    ):
        return there
    frames = _FRAME.findall(stack) if isinstance(stack, str) else ()
    attributes[_STACK] = "\n".join(
        f"{file}:{line} in {function or '<module>'}" for file, line, function in frames
    )
    return True


def _value(value: Any) -> Any:
    """The value itself where there is nothing to take out."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, Sequence):
        made = [_value(each) for each in value]
        return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
    if isinstance(value, dict):
        copy = dict(value)
        is_changed = _clean(copy)
        for name in [name for name in copy if _text(name) is not name]:
            copy[_free(_text(name), copy)] = copy.pop(name)
            is_changed = True
        return copy if is_changed else value
    return value


def _free(name: str, names: Mapping[str, Any]) -> str:
    """A name that is not one of them, with a number where it has to be."""
    free, number = name, 1
    while free in names:
        number += 1
        free = f"{name} {number}"
    return free


def _bytes(value: bytes) -> bytes:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    cleaned = _text(text)
    return value if cleaned is text else cleaned.encode()


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
