"""Whose sampled flag counts.

An inbound trace context stays the parent, but its sampled flag is the sender's wish: a client
on the internet could switch tracing off, or switch it on for every request it sends. The flag
counts only from trusted TCP peers; for others this process decides as for a new trace.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from pbmon.signals import Cell
from pbmon.telemetry import plugins

_UNTRUSTED = create_key("pbmon-untrusted-peer")


_STANDARD = frozenset(
    ("always_on", "always_off", "traceidratio", "parentbased_always_on",
     "parentbased_always_off", "parentbased_traceidratio")
)  # fmt: skip


def from_environment() -> Sampler | None:
    """The sampler that OTEL_TRACES_SAMPLER names; None where it is one of the specification's,
    for the SDK then obeys it exactly."""
    name = os.environ.get("OTEL_TRACES_SAMPLER", "")
    if name.lower() in _STANDARD:
        return None
    return (plugins.sampler() if name.strip() else None) or PeerSampler()


class PeerSampler(Sampler):
    """Parent-based, except that an untrusted peer's flag does not count."""

    def __init__(self, root: Sampler = ALWAYS_ON) -> None:
        self._root = root
        self._parent_based = ParentBased(root)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        chosen = self._parent_based
        if get_value(_UNTRUSTED, parent_context):
            parent = trace.get_current_span(parent_context).get_span_context()
            if parent.is_remote:
                return self._root.should_sample(
                    parent_context, trace_id, name, kind, attributes, links, parent.trace_state
                )
        return chosen.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return f"PbmonPeerSampler{{root={self._root.get_description()}}}"


class CountedSampler(Sampler):
    """Any sampler, with a count of what it decided."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.decisions = {decision: Cell() for decision in Decision}

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        result = self._sampler.should_sample(*args, **kwargs)
        self.decisions[result.decision].up()
        return result

    def get_description(self) -> str:
        return self._sampler.get_description()


def mark_untrusted(context: Context) -> Context:
    return set_value(_UNTRUSTED, True, context)
