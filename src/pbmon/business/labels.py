"""Segments as attributes of metrics: few, with few values each, whatever the application says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from pbmon import segments, signals
from pbmon.segments import ATTRIBUTE, OTHER
from pbmon.settings import Settings

MAX_VALUES = 20
"""Of a segment without declared values, those that come first in this process; the others count
as `_other`."""

_MAX_AT_ZERO = 1000
"""Series that one metric has at 0 from the start."""


class SegmentLabels:
    """names: of the segments that metrics are divided by. apply() changes them while it runs."""

    def __init__(self, settings: Settings) -> None:
        self._seen: dict[str, set[str]] = {}
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self.names = tuple(sorted(set(settings.segment_metrics) & settings.segments.keys()))
        self._declared = {name: settings.segments[name] for name in self.names}
        for name in sorted(set(settings.segment_metrics) - settings.segments.keys()):
            signals.tell(
                f"segment_metrics:{name}",
                "pbmon: setting segment_metrics names %s, which is no segment; add it to segments",
                name,
            )

    def of(self, given: Mapping[str, str]) -> signals.Key:
        """Attributes of a person with these segments."""
        kept = segments.keep(self._declared, given)
        return tuple((ATTRIBUTE + n, self._value(n, kept[n])) for n in self.names if n in kept)

    def _value(self, name: str, value: str) -> str:
        if self._declared[name]:
            return value
        seen = self._seen.setdefault(name, set())
        if value not in seen:
            if len(seen) >= MAX_VALUES:
                return OTHER
            seen.add(value)
        return value

    def every(self, series: int) -> list[signals.Key]:
        """What series are to be made at 0 for: no segment; and each of their values, where all are
        declared and the series are not too many. series: without segments."""
        sets = [(*values, OTHER) for values in self._declared.values()]
        if not all(self._declared.values()):
            sets = []
        keys = [
            tuple(zip((ATTRIBUTE + name for name in self.names), values, strict=True))
            for values in (itertools.product(*sets) if sets else ())
        ]
        return [(), *keys] if series * (len(keys) + 1) <= _MAX_AT_ZERO else [()]
