"""Measurements checked where they come in: what can't be counted is refused, counted and told."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, CallbackT, Observation
from opentelemetry.metrics import Meter as APIMeter
from opentelemetry.util.types import Attributes

from pbmon import catalog, signals
from pbmon.telemetry.observables import Observables

_MOST = 2**63 - 1  # OTLP's integers
# Integers beyond go on as floats: no sum of them can pass _MOST, and a backend's numbers are
# floats anyway, exact up to 2**53.
MOST_AS_INT = 2**32
_MAX_ITEMS = 128  # of one attribute set, list or mapping
_MAX_DEPTH = 4

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


class Refusals:
    """Counts refused measurements, and tells of each instrument and reason once a minute."""

    def __init__(self, meter: APIMeter) -> None:
        self._counts = signals.Counts(catalog.REFUSED_MEASUREMENTS, meter)

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
    return number if abs(number) <= MOST_AS_INT else float(number)


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


def check(instrument: Any, method: str, lowest: float, refusals: Refusals) -> Any:
    """Put the check before the instrument's method, once.

    On the instance: the SDK looks instruments up by their exact class.
    """
    if method not in vars(instrument):
        record = getattr(type(instrument), method).__get__(instrument)
        setattr(instrument, method, _checked(record, instrument.name, lowest, refusals))
    return instrument


def _checked(record: Measure, name: str, lowest: float, refusals: Refusals) -> Measure:
    def measure(
        amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        try:
            kind = type(amount)
            if (kind is not int and kind is not float) or not lowest <= amount <= MOST_AS_INT:
                amount = _number(amount, lowest)
            if attributes is not None and not (type(attributes) is dict and _is_plain(attributes)):
                attributes = _clean(attributes)
            record(amount, attributes, context)
        except _Wrong as wrong:
            refusals.count(name, wrong.reason)
        except Exception as error:
            signals.failed(f"measuring {name}", error)

    return measure


def watch(
    callbacks: Sequence[CallbackT] | None,
    name: str,
    lowest: float,
    refusals: Refusals,
    observables: Observables,
) -> list[CallbackT] | None:
    """The same check for what the callbacks of an observable instrument return."""
    if callbacks is None:
        return None
    watched = [_Watched(callback, name, lowest, refusals) for callback in callbacks]
    for each in watched:
        if not each.is_instant:
            observables.add(name, each.refresh)
            each.observables = observables
    return list(watched)


class _Watched:
    """A callback and what it said last."""

    def __init__(self, callback: CallbackT, name: str, lowest: float, refusals: Refusals) -> None:
        self.is_instant: bool = getattr(callback, signals.INSTANT, False)
        self.observables: Observables | None = None
        self._read = _resume(callback) if isinstance(callback, Generator) else callback
        self._name = name
        self._lowest = lowest
        self._refusals = refusals
        self._last: list[Observation] = []

    def __call__(self, options: CallbackOptions) -> Iterator[Observation]:
        if self.observables is not None and self.observables.are_replaying:
            yield from self._last
        else:
            yield from self._ask(options)

    def refresh(self) -> None:
        seen: list[Observation] = []
        try:
            seen.extend(self._ask(CallbackOptions()))
        finally:
            self._last = seen

    def _ask(self, options: CallbackOptions) -> Iterator[Observation]:
        for seen in self._read(options):
            try:
                attributes = seen.attributes
                if attributes is not None:
                    attributes = _clean(attributes)
                value = _number(seen.value, self._lowest)
                observation = Observation(value, attributes, seen.context)
            except _Wrong as wrong:
                self._refusals.count(self._name, wrong.reason)
            except Exception:
                self._refusals.count(self._name, "type")  # no Observation at all
            else:
                yield observation


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
