"""Batches on their way to the receiver, in the parts that are sent in one request each."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pbmon.spool.shelf import Batch, Source
from pbmon.telemetry import encoding


@dataclass(slots=True, eq=False)
class Part:
    """A piece of a batch that is sent in one request."""

    payloads: list[bytes]
    items: int
    failures: int = 0
    is_doubtful: bool = False
    """Whether the last failure may be the fault of what is in it."""
    taken_before: int | None = None
    """How many parts had been taken when this one, or what it was cut from, first failed."""


@dataclass(slots=True)
class Work:
    """A batch on its way."""

    source: Source
    batch: Batch
    parts: deque[Part] = field(default_factory=deque)
    delivered: int = 0
    rejected: int = 0

    @property
    def size(self) -> int:
        return sum(len(record.payload) for record in self.batch.records)


def parts_of(batch: Batch, start: int = 0) -> deque[Part]:
    """The batch's records from this one on, as one part."""
    records = batch.records[start:]
    if not records:
        return deque()
    return deque([Part([r.payload for r in records], sum(r.items for r in records))])


def cut(signal: str, part: Part) -> list[Part]:
    """A part as two of half its items; of its records, where it has several."""
    payloads = part.payloads
    if len(payloads) == 1:
        halves = encoding.split(signal, payloads[0])
        return [Part([half.payload], half.items, taken_before=part.taken_before) for half in halves]
    middle = len(payloads) // 2
    return [
        Part(
            some,
            sum(encoding.count(signal, payload) for payload in some),
            taken_before=part.taken_before,
        )
        for some in (payloads[:middle], payloads[middle:])
    ]
