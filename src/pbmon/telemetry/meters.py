"""Meters that no measurement can poison and no attribute can explode, right after a fork.

The SDK's own MeterProvider raises for a value that is no number, keeps one a receiver refuses
(then every later export fails), and has no cap on series. CheckedMeterProvider is that provider
with three changes: measurements are checked where they come in, series are capped where the SDK
keeps them, and forget() renews both in a forked child.

Where the SDK keeps them is private (tests/packaging lists the names, tests/telemetry/test_private
tries them): a provider's measurement consumer has one storage for each reader, a storage one match
for each instrument and view, a match one aggregation for each attribute set.
"""

from __future__ import annotations

import math
import operator
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, CallbackT, Observation, Synchronous
from opentelemetry.metrics import Meter as APIMeter
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION,
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
)
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    Meter,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    DefaultAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)
from opentelemetry.util.types import Attributes

from pbmon import catalog, signals

_MOST = 2**63 - 1  # OTLP's integers
# Integers beyond go on as floats: no sum of them can pass _MOST, and a backend's numbers are
# floats anyway, exact up to 2**53.
_MOST_AS_INT = 2**32
_MAX_ITEMS = 128  # of one attribute set, list or mapping
_MAX_DEPTH = 4
_OVERFLOW = dict(signals.OVERFLOW)

_REMEDIES = {
    "type": "its value is no number; pass an int or a float",
    "not_finite": "its value is NaN or infinite; leave such a measurement out",
    "negative": "its value is below 0; use an up/down counter or a gauge for what can fall",
    "out_of_range": "its value is beyond 64 bits; use a larger unit",
    "attributes": "its attributes must be a mapping of text to text, numbers, booleans or lists",
}


class _Wrong(Exception):
    """A measurement that can't be taken. reason: a key of _REMEDIES."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Refusals:
    """Counts refused measurements, and tells of each instrument and reason once a minute."""

    def __init__(self, meter: APIMeter) -> None:
        self._counts = signals.Counts(catalog.REFUSED_MEASUREMENTS, meter)
        self.replaying = False
        """Whether observables are to give their last observations again."""

    def count(self, instrument: str, reason: str) -> None:
        self._counts.cell(((catalog.REASON.name, reason),)).up()
        signals.tell(
            f"measurement:{instrument}:{reason}",
            "pbmon: a measurement of %s was refused: %s",
            instrument,
            _REMEDIES[reason],
        )


# --- values and attributes ----------------------------------------------------------------------


def _number(amount: object, lowest: float) -> int | float:
    """A number that can be added up and sent for ever. lowest: 0, or below it for any sign."""
    try:
        # Every integer, NumPy's included, has __index__; Decimal and the like have __float__.
        whole = hasattr(type(amount), "__index__")
        if not whole and not hasattr(type(amount), "__float__"):
            amount = None  # text, which float() would read
        number = int(operator.index(cast("int", amount))) if whole else float(cast("Any", amount))
    except OverflowError:
        raise _Wrong("out_of_range") from None
    except Exception:
        raise _Wrong("type") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise _Wrong("not_finite")
    if abs(number) > _MOST:
        raise _Wrong("out_of_range")
    if number < 0 <= lowest:
        raise _Wrong("negative")
    return number if abs(number) <= _MOST_AS_INT else float(number)


def _is_plain(attributes: Mapping[str, Any]) -> bool:
    """Whether there is nothing to clean, which is nearly always: without looking into text that
    is not ASCII."""
    for name, value in attributes.items():
        if type(name) is not str or not name or not name.isascii():
            return False
        kind = type(value)
        if kind is str:
            if not value.isascii():
                return False
        elif kind is int:
            if not -_MOST <= value <= _MOST:
                return False
        elif kind is not bool and kind is not float:
            return False
    return True


def _clean(attributes: Any) -> dict[str, Any]:
    """Attributes as the SDK takes and OTLP can carry them, in plain types.

    As in the SDK, what is no text or number but has a text of its own (UUID, Path …) is that text.
    """
    try:
        return _clean_mapping(attributes, 0)
    except _Wrong:
        raise
    except Exception:
        raise _Wrong("attributes") from None


def _clean_mapping(mapping: Any, depth: int) -> dict[str, Any]:
    if not isinstance(mapping, Mapping) or len(mapping) > _MAX_ITEMS or depth > _MAX_DEPTH:
        raise _Wrong("attributes")
    return {_clean_text(k): _clean_value(v, depth) for k, v in mapping.items() if k != ""}


def _clean_value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # OTLP has no larger integers; as text is the specification's rule.
        return int(value) if -_MOST <= value <= _MOST else str(int(value))
    if isinstance(value, float | bytes | bytearray):
        return float(value) if isinstance(value, float) else bytes(value)
    if isinstance(value, Mapping):
        return _clean_mapping(value, depth + 1)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > _MAX_ITEMS or depth >= _MAX_DEPTH:
            raise _Wrong("attributes")
        return tuple(_clean_value(item, depth + 1) for item in value)
    return _clean_text(value)


def _clean_text(value: Any) -> str:
    kind: Any = type(value)
    if isinstance(value, str):
        text = str.__str__(value)  # a subclass may hash and compare as it likes
    elif kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise _Wrong("attributes")  # `<object at 0x…>` would be a new series each time
    else:
        text = str.__str__(str(value))
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# --- instruments --------------------------------------------------------------------------------

Measure = Callable[..., None]


def _check(instrument: Any, method: str, lowest: float, refusals: _Refusals) -> Any:
    """Put the check before the instrument's method, once.

    On the instance: the SDK looks instruments up by their exact class.
    """
    if method not in vars(instrument):
        record = getattr(type(instrument), method).__get__(instrument)
        setattr(instrument, method, _checked(record, instrument.name, lowest, refusals))
    return instrument


def _checked(record: Measure, name: str, lowest: float, refusals: _Refusals) -> Measure:
    def measure(
        amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        try:
            kind = type(amount)
            if (kind is not int and kind is not float) or not lowest <= amount <= _MOST_AS_INT:
                amount = _number(amount, lowest)
            if attributes is not None and not (type(attributes) is dict and _is_plain(attributes)):
                attributes = _clean(attributes)
            record(amount, attributes, context)
        except _Wrong as wrong:
            refusals.count(name, wrong.reason)
        except Exception as error:
            signals.failed(f"measuring {name}", error)

    return measure


def _watch(
    callbacks: Sequence[CallbackT] | None, name: str, lowest: float, refusals: _Refusals
) -> list[CallbackT] | None:
    """The same check for what the callbacks of an observable instrument return."""
    if callbacks is None:
        return None
    return [_watched(callback, name, lowest, refusals) for callback in callbacks]


def _watched(callback: CallbackT, name: str, lowest: float, refusals: _Refusals) -> CallbackT:
    read = _resume(callback) if isinstance(callback, Generator) else callback

    always = getattr(callback, signals.INSTANT, False)
    last: list[Observation] = []

    def watched(options: CallbackOptions) -> Iterator[Observation]:
        if refusals.replaying and not always:
            yield from last
            return
        last.clear()
        for observation in ask(options):  # one that fails midway has given what it had
            last.append(observation)
            yield observation

    def ask(options: CallbackOptions) -> Iterator[Observation]:
        for seen in read(options):
            try:
                attributes = seen.attributes
                if attributes is not None:
                    attributes = _clean(attributes)
                value = _number(seen.value, lowest)
                observation = Observation(value, attributes, seen.context)
            except _Wrong as wrong:
                refusals.count(name, wrong.reason)
            except Exception:
                refusals.count(name, "type")  # no Observation at all
            else:
                yield observation

    return watched


def _resume(
    callback: Generator[Iterable[Observation], CallbackOptions, None],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    next(callback)  # to its first `options = yield`

    def read(options: CallbackOptions) -> Iterable[Observation]:
        try:
            return callback.send(options)
        except StopIteration:
            return ()

    return read


class CheckedMeter(Meter):
    """The SDK's Meter; its instruments refuse what they can't count instead of raising."""

    refusals: _Refusals

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        return _check(super().create_counter(name, unit, description), "add", 0, self.refusals)

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        made = super().create_up_down_counter(name, unit, description)
        return _check(made, "add", -_MOST_AS_INT, self.refusals)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> Any:
        made = super().create_histogram(
            name,
            unit,
            description,
            explicit_bucket_boundaries_advisory=explicit_bucket_boundaries_advisory,
        )
        return _check(made, "record", 0, self.refusals)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Any:
        made = super().create_gauge(name, unit, description)
        return _check(made, "set", -_MOST_AS_INT, self.refusals)

    def create_observable_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> Any:
        watched = _watch(callbacks, name, 0, self.refusals)
        return super().create_observable_counter(name, watched, unit, description)

    def create_observable_up_down_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> Any:
        watched = _watch(callbacks, name, -_MOST_AS_INT, self.refusals)
        return super().create_observable_up_down_counter(name, watched, unit, description)

    def create_observable_gauge(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> Any:
        watched = _watch(callbacks, name, -_MOST_AS_INT, self.refusals)
        return super().create_observable_gauge(name, watched, unit, description)


# --- series -------------------------------------------------------------------------------------


class _Capped(dict[Any, Any]):
    """A match's aggregations by attribute set: signals.MAX_SERIES, and one for all the rest.

    The SDK makes an aggregation for a set it does not find here, stores it and looks it up again:
    one that was not kept is found to be the rest.
    """

    rest: Any = None

    def __setitem__(self, key: Any, aggregation: Any) -> None:
        own = len(self) - (self.rest is not None)
        if own < signals.MAX_SERIES and aggregation._attributes != _OVERFLOW:  # noqa: SLF001
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
            capped = _Capped()
            for key, aggregation in match._attributes_aggregation.items():  # noqa: SLF001
                capped[key] = aggregation
            match._attributes_aggregation = capped  # noqa: SLF001
        super().__setitem__(instrument, matches)


def _cap(provider: MeterProvider) -> None:
    consumer = provider._measurement_consumer  # noqa: SLF001
    for storage in consumer._reader_storages.values():  # noqa: SLF001
        with storage._lock:  # noqa: SLF001
            made = storage._instrument_view_instrument_matches  # noqa: SLF001
            if not isinstance(made, _Matches):
                matches = _Matches()
                for instrument, found in made.items():
                    matches[instrument] = found
                storage._instrument_view_instrument_matches = matches  # noqa: SLF001


class CheckedMeterProvider(MeterProvider):
    """The SDK's MeterProvider, with the same arguments.

    Its instruments never raise for a wrong value or wrong attributes: these are refused, counted
    in pbmon.refused_measurements and told of with the remedy. An instrument has at most
    signals.MAX_SERIES series for each reader and view; what comes after is one more,
    `otel.metric.overflow`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The SDK's own meter, which its readers ask for in here, needs no checks.
        self._refusals: _Refusals | None = None
        super().__init__(*args, **kwargs)
        self._refusals = _Refusals(
            super().get_meter("pbmon", catalog.VERSION, schema_url=catalog.SCHEMA_URL)
        )
        with signals.guard("capping metrics"):
            _cap(self)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """While it lasts, observables of the application, which may take long or ask a database,
        give their last observations again instead of being called."""
        assert self._refusals is not None
        self._refusals.replaying = True
        try:
            yield
        finally:
            self._refusals.replaying = False

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> APIMeter:
        meter = super().get_meter(name, version, schema_url, attributes)
        if type(meter) is Meter and self._refusals is not None:
            # The SDK makes and keeps its meters itself, of the one class.
            vars(meter)["refusals"] = self._refusals
            meter.__class__ = CheckedMeter
        return meter

    def add_metric_reader(self, metric_reader: MetricReader) -> None:
        super().add_metric_reader(metric_reader)
        with signals.guard("capping metrics"):
            _cap(self)


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
    if isinstance(instrument, Synchronous) and getattr(aggregations, "rest", None) is None:
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


# --- what a reader asks for ---------------------------------------------------------------------

_DELTA: Mapping[str, frozenset[type]] = {
    "cumulative": frozenset(),
    "delta": frozenset((Counter, Histogram, ObservableCounter)),
    "lowmemory": frozenset((Counter, Histogram)),
}
_HISTOGRAMS: Mapping[str, Callable[[], Aggregation]] = {
    "explicit_bucket_histogram": ExplicitBucketHistogramAggregation,
    "base2_exponential_bucket_histogram": ExponentialBucketHistogramAggregation,
}
_KINDS: tuple[type, ...] = (
    Counter, UpDownCounter, Histogram, ObservableCounter, ObservableUpDownCounter, ObservableGauge,
)  # fmt: skip


def preferred_temporality(environ: Mapping[str, str]) -> dict[type, AggregationTemporality]:
    """Temporality by instrument, as OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE says.

    A value that is none of cumulative (the default), delta and lowmemory is told of.
    """
    delta = _DELTA[_choice(environ, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, _DELTA)]
    return {
        kind: AggregationTemporality.DELTA if kind in delta else AggregationTemporality.CUMULATIVE
        for kind in _KINDS
    }


def preferred_aggregation(environ: Mapping[str, str]) -> dict[type, Aggregation]:
    """How histograms are kept, as OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION says.

    A value that is neither explicit_bucket_histogram (the default) nor
    base2_exponential_bucket_histogram is told of.
    """
    variable = OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION
    return {Histogram: _HISTOGRAMS[_choice(environ, variable, _HISTOGRAMS)]()}


def _choice(environ: Mapping[str, str], variable: str, choices: Iterable[str]) -> str:
    """The variable's value; the first of the choices where it is unset, empty or wrong."""
    known = list(choices)
    value = environ.get(variable, "").strip().lower()
    if value and value not in known:
        signals.tell(
            variable, "pbmon: %s is none of %s; set it to one of them", variable, ", ".join(known)
        )
    return value if value in known else known[0]
