"""Spans as OTLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as _stock
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from pbmon.telemetry.encoding import standins
from pbmon.telemetry.encoding.batches import encode
from pbmon.telemetry.encoding.cleaning import clean_span
from pbmon.telemetry.encoding.limits import UINT32
from pbmon.telemetry.encoding.mending import Mender
from pbmon.telemetry.encoding.payloads import Encoded
from pbmon.telemetry.encoding.sources import Sources
from pbmon.telemetry.encoding.weighing import check_size, copied, weigh, weigh_text


def encode_spans(spans: Sequence[ReadableSpan], *, clean: bool = False) -> Encoded:
    """Never raises; the spans are left as they are. clean: see `cleaning`."""
    return encode(spans, _plain_span, _mend_span, _stock, clean_span if clean else None)


def _plain_span(span: Any, sources: Sources) -> standins.Span:
    attributes = copied(span.attributes)
    name = span.name
    size = weigh(attributes) + weigh_text(name)
    events = span.events
    for event in events:
        size += 16 + weigh_text(event.name) + weigh(copied(event.attributes))
    links = span.links
    for link in links:
        size += 48 + weigh(copied(link.attributes))
    status = span.status
    if status is not None:
        size += weigh_text(status.description)
    context = span.get_span_context()
    if context.trace_state:
        size += weigh(dict(context.trace_state))
    check_size(size)
    return standins.Span(
        name=name,
        context=context,
        parent=span.parent,
        kind=span.kind,
        start_time=span.start_time,
        end_time=span.end_time,
        attributes=attributes,
        events=events,
        links=links,
        status=status,
        dropped_attributes=span.dropped_attributes,
        dropped_events=span.dropped_events,
        dropped_links=span.dropped_links,
        resource=sources.resource(span.resource),
        instrumentation_scope=sources.scope(span.instrumentation_scope),
    )


def _mend_span(span: Any, mender: Mender) -> standins.Span:
    read = mender.read
    name = mender.text(read(span, "name"))
    context = mender.context(_context_of(span, mender))
    parent = read(span, "parent")
    status = read(span, "status")
    attributes = mender.attributes(read(span, "attributes"))
    return standins.Span(
        name=name,
        context=context,
        parent=None if parent is None else mender.context(parent),
        kind=mender.choice(read(span, "kind"), SpanKind, SpanKind.INTERNAL),
        start_time=mender.time(read(span, "start_time")),
        end_time=mender.time(read(span, "end_time")),
        attributes=attributes,
        status=None
        if status is None
        else standins.Status(
            mender.choice(read(status, "status_code"), StatusCode, StatusCode.UNSET),
            mender.text(read(status, "description")),
        ),
        events=_fitting(read(span, "events"), _mend_event, mender),
        links=_fitting(read(span, "links"), _mend_link, mender),
        dropped_attributes=mender.number(read(span, "dropped_attributes"), UINT32),
        dropped_events=mender.number(read(span, "dropped_events"), UINT32),
        dropped_links=mender.number(read(span, "dropped_links"), UINT32),
        resource=standins.NO_RESOURCE,
        instrumentation_scope=None,
    )


def _context_of(span: Any, mender: Mender) -> Any:
    try:
        return span.get_span_context()
    except Exception:
        mender.note("type")
        return None


def _fitting(values: Any, mend: Callable[[Any, Mender], Any], mender: Mender) -> list[Any]:
    taken: list[Any] = []
    for value in mender.each(values):
        if mender.full:
            mender.note_rest(values, len(taken))
            break
        mender.size += 64
        taken.append(mend(value, mender))
    return taken


def _mend_event(event: Any, mender: Mender) -> standins.Event:
    read = mender.read
    return standins.Event(
        name=mender.text(read(event, "name")),
        timestamp=mender.time(read(event, "timestamp")),
        attributes=mender.attributes(read(event, "attributes")),
        dropped_attributes=mender.number(read(event, "dropped_attributes"), UINT32),
    )


def _mend_link(link: Any, mender: Mender) -> standins.Link:
    read = mender.read
    return standins.Link(
        context=mender.context(read(link, "context")),
        attributes=mender.attributes(read(link, "attributes")),
        dropped_attributes=mender.number(read(link, "dropped_attributes"), UINT32),
    )
