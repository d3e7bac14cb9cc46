"""Where the SDK keeps its series: capped, and renewed in a forked child.

It is private (tests/packaging lists the names, tests/telemetry/test_private tries them): a
provider's measurement consumer has one storage for each reader, a storage one match for each
instrument and view, a match one aggregation for each attribute set.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from opentelemetry.metrics import Synchronous
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import DefaultAggregation

from pbmon import signals

_OVERFLOW = dict(signals.OVERFLOW)


class _Capped(dict[Any, Any]):
    """A match's aggregations by attribute set: signals.OWN_SERIES, and one for all the rest.

    For an SDK without a limit of its own, which makes an aggregation for a set it does not find
    here, stores it and looks it up again: one that was not kept is found to be the rest.
    """

    rest: Any = None

    def __setitem__(self, key: Any, aggregation: Any) -> None:
        own = len(self) - (self.rest is not None)
        if own < signals.OWN_SERIES and aggregation._attributes != _OVERFLOW:  # noqa: SLF001
            super().__setitem__(key, aggregation)
        elif self.rest is None:
            aggregation._attributes = dict(_OVERFLOW)  # noqa: SLF001
            self.rest = aggregation
            super().__setitem__(key, aggregation)

    def __missing__(self, key: Any) -> Any:
        if self.rest is None:
            raise KeyError(key)
        return self.rest


class _Matches(dict[Any, Any]):
    """A storage's matches by instrument; those that are put in are capped."""

    def __setitem__(self, instrument: Any, matches: Any) -> None:
        for match in matches:
            if hasattr(match, "_cardinality_limit"):  # from 1.45.2 on the SDK's own, 2,000 and one
                least = min(match._cardinality_limit, signals.OWN_SERIES)  # noqa: SLF001
                match._cardinality_limit = least  # noqa: SLF001
                continue
            capped = _Capped()
            for key, aggregation in match._attributes_aggregation.items():  # noqa: SLF001
                capped[key] = aggregation
            match._attributes_aggregation = capped  # noqa: SLF001
        super().__setitem__(instrument, matches)


def cap(provider: MeterProvider) -> None:
    consumer = provider._measurement_consumer  # noqa: SLF001
    for storage in consumer._reader_storages.values():  # noqa: SLF001
        with storage._lock:  # noqa: SLF001
            made = storage._instrument_view_instrument_matches  # noqa: SLF001
            if not isinstance(made, _Matches):
                matches = _Matches()
                for instrument, found in made.items():
                    matches[instrument] = found
                storage._instrument_view_instrument_matches = matches  # noqa: SLF001


# --- after a fork -------------------------------------------------------------------------------


def forget(provider: MeterProvider) -> None:
    """In a forked child: what the parent counted is the parent's to export.

    Every synchronous series starts at 0 now, a gauge's with its next value, an observable's with
    the next reading. Locks are renewed: their holders, other threads, are not in the child.
    """
    consumer: Any = provider._measurement_consumer  # noqa: SLF001
    consumer._lock = threading.Lock()  # noqa: SLF001
    for reader, storage in consumer._reader_storages.items():  # noqa: SLF001
        _renew_locks(reader)
        storage._lock = threading.RLock()  # noqa: SLF001
        for instrument, matches in storage._instrument_view_instrument_matches.items():  # noqa: SLF001
            for match in matches:
                match._lock = threading.Lock()  # noqa: SLF001
                match._attributes_aggregation = _start_again(match, instrument)  # noqa: SLF001
    meter: Any
    for meter in provider._meters.values():  # noqa: SLF001
        meter._instrument_registration_lock = threading.Lock()  # noqa: SLF001
        meter._instrument_ids_lock = threading.Lock()  # noqa: SLF001


def _renew_locks(reader: Any) -> None:
    if hasattr(reader, "_export_lock"):  # the periodic one's, held for as long as an export takes
        reader._export_lock = threading.Lock()  # noqa: SLF001
    if hasattr(reader, "_lock"):
        reader._lock = threading.RLock()  # noqa: SLF001


def _start_again(match: Any, instrument: Any) -> Any:
    aggregations = match._attributes_aggregation  # noqa: SLF001
    fresh = type(aggregations)()
    # Of a parent that had more sets than the cap, none is worth a place in the child's.
    if isinstance(instrument, Synchronous) and len(aggregations) <= signals.OWN_SERIES:
        view = match._view  # noqa: SLF001
        kind = view._aggregation  # noqa: SLF001
        if isinstance(kind, DefaultAggregation):
            kind = match._instrument_class_aggregation[type(instrument)]  # noqa: SLF001
        for key, aggregation in aggregations.items():
            fresh[key] = kind._create_aggregation(  # noqa: SLF001
                instrument,
                aggregation._attributes,  # noqa: SLF001
                view._exemplar_reservoir_factory,  # noqa: SLF001
                time.time_ns(),
            )
    return fresh
