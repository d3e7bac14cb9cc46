"""From a catalogue entry to an OpenTelemetry API instrument, and the guard around our own code.

Only the API is used here, so the business and worker layers work on whatever provider is set.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from pbmon.catalog import Metric

MAX_SERIES = 2000
"""Series an instrument may have in one process, OVERFLOW among them, as the OpenTelemetry metrics
SDK specification counts."""

OVERFLOW = (("otel.metric.overflow", True),)
"""The series of everything that is no series of its own."""

OWN_SERIES = MAX_SERIES - 1

# Outside the OpenTelemetry log pipeline: a failing exporter must not feed itself.
INTERNAL_LOGGER = "pbmon.internal"
_log = logging.getLogger(INTERNAL_LOGGER)
_SILENCE_S = 60.0
_last_told: dict[str, float] = {}

reraise = False
"""Set by pbmon's own tests, where a fault of ours must be seen."""


def tell(key: str, message: str, *args: object, exc_info: bool = False) -> None:
    """Log a warning about ourselves, at most once a minute for each key."""
    now = time.monotonic()
    if now - _last_told.get(key, -_SILENCE_S) >= _SILENCE_S:
        _last_told[key] = now
        _log.warning(message, *args, exc_info=exc_info)


@contextmanager
def guard(what: str) -> Iterator[None]:
    """The one place where a failure of ours is caught: the application goes on, we say so once
    a minute. `what` names the work, for example `request hook`."""
    try:
        yield
    except Exception as error:
        failed(what, error)


def failed(what: str, error: Exception) -> None:
    """guard()'s verdict, for hot paths that spell out the `try` themselves."""
    if reraise:
        raise error
    # What the application raised, and is being handled, is not ours to show.
    error.__suppress_context__ = True
    tell(
        f"{what}:{type(error).__name__}",
        "pbmon: %s failed with %s; the application is not affected. Please report it.",
        what,
        type(error).__name__,
        exc_info=True,
    )


# --- after a fork ---


class Forking(Protocol):
    """What must be brought to rest before a fork."""

    def begin_fork(self) -> None:
        """In the thread that forks, before it does."""

    def end_fork(self) -> None:
        """In the parent, afterwards."""


class Forgetful(Protocol):
    """What a process counted and a forked child of it must not count again."""

    def forget(self) -> None:
        """Start at 0, and renew every lock: their holders, other threads, are not in the child."""


_forgetful: weakref.WeakSet[Forgetful] = weakref.WeakSet()
_forking_parts: list[Forking] = []


def enlist(part: Forgetful) -> None:
    """Have part.forget() called in forked children, as long as the part lives."""
    _forgetful.add(part)


def enlist_for_forks(part: Forking) -> None:
    """Have part.begin_fork() called before every fork, and part.end_fork() after it."""
    _forking_parts.append(part)


def forget() -> None:
    """In a forked child: start every count at 0. The parent exports what it counted itself."""
    global _reading, importing
    _reading = threading.RLock()
    importing = threading.Lock()
    for part in list(_forgetful):
        with guard(f"forgetting {type(part).__name__}"):
            part.forget()


importing = threading.Lock()
"""Held by a thread of ours while it imports: a child forked in the middle could never import the
same module, whose lock a thread that it does not have would hold."""

_IMPORT_WAIT_S = 2.0
_forking = False


def begin_fork() -> None:
    """Before a fork: wait for the imports of our threads. Not for ever: one of them may wait for
    an import of the thread that forks."""
    global _forking
    for part in _forking_parts:
        with guard(f"resting {type(part).__name__}"):
            part.begin_fork()
    _forking = importing.acquire(timeout=_IMPORT_WAIT_S)


def end_fork() -> None:
    """In the parent of a fork."""
    for part in _forking_parts:
        with guard(f"waking {type(part).__name__}"):
            part.end_fork()
    if _forking:
        importing.release()


# --- instruments ---

Key = tuple[tuple[str, Any], ...]
"""Attributes of one series, as sorted by the caller; hashable."""


class Counts:
    """A counter or up/down counter of one catalogue entry, cheap enough for every request.

    An `add` is one dictionary look-up and one C-level step of `itertools.count`, which the
    interpreter cannot interrupt, so threads lose nothing and nothing is locked. The instrument
    is observable: the SDK reads the totals once per export, exactly. Where the entry's attributes
    take finite sets of values, every series is there at 0 from the start: the first count is a
    rise.
    """

    __slots__ = ("__weakref__", "_cells", "_lock")

    def __init__(self, metric: Metric, meter: metrics.Meter) -> None:
        self._cells: dict[Key, Cell] = {}
        self._lock = threading.Lock()
        for attributes in metric.finite_series():
            self.cell(key(attributes))
        observe(metric, self._observe, meter=meter, instant=True)
        enlist(self)

    def cell(self, key: Key) -> Cell:
        """The series of these attributes, made at the first call; keep it to count fast."""
        cell = self._cells.get(key)
        return cell if cell is not None else self._add_cell(key)

    def _add_cell(self, key: Key) -> Cell:
        with self._lock:
            if len(self._cells) >= OWN_SERIES:
                key = OVERFLOW
            return self._cells.setdefault(key, Cell())

    def forget(self) -> None:
        self._lock = threading.Lock()
        for cell in self._cells.values():
            cell.forget()

    def _observe(self) -> Iterable[Observation]:
        # copy() is one step of the interpreter: a series added meanwhile can't disturb the loop.
        return [Observation(cell.value, dict(key)) for key, cell in self._cells.copy().items()]


_reading = threading.RLock()


class Cell:
    __slots__ = ("_forgotten", "down", "up")

    def __init__(self) -> None:
        self.up = itertools.count().__next__
        self.down = itertools.count().__next__
        self._forgotten = 0

    @property
    def value(self) -> int:
        """Ups less downs. Reading steps both counts, so the steps of reads cancel out.

        One reader at a time, or a counter would fall back by the other's step, which Prometheus
        takes for a restart. Downs first: what goes down meanwhile is not read as below 0.
        """
        with _reading:
            down = self.down()
            return self.up() - down - self._forgotten

    def forget(self) -> None:
        """Be 0. `up` and `down` stay the same objects, as a caller may have kept them."""
        self._forgotten += self.value


INSTANT = "pbmon_instant"
"""Attribute of an observable's callback that may be asked as often as one likes."""


def observe(
    metric: Metric,
    read: Callable[[], Iterable[Observation]],
    *,
    meter: metrics.Meter,
    instant: bool = False,
) -> None:
    """Create the observable instrument of a catalogue entry; `read` gives its series.

    instant: it only reads memory, so it may be asked every second and not just for an export.

    A failing `read` is reported by guard() and leaves the series out of that export.
    """

    def callback(_options: CallbackOptions) -> Iterable[Observation]:
        with guard(f"reading {metric.name}"):
            return list(read())
        return []

    vars(callback)[INSTANT] = instant
    create = {
        "counter": meter.create_observable_counter,
        "updowncounter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }[metric.kind]
    create(metric.name, [callback], unit=metric.unit, description=metric.meaning)


def histogram(
    metric: Metric, *, extra_buckets: Iterable[float] = (), meter: metrics.Meter
) -> metrics.Histogram:
    """The histogram of a catalogue entry; extra_buckets are further bounds, such as budgets."""
    return meter.create_histogram(
        metric.name,
        unit=metric.unit,
        description=metric.meaning,
        explicit_bucket_boundaries_advisory=sorted({*metric.buckets, *extra_buckets}),
    )


def key(attributes: Mapping[str, Any]) -> Key:
    """Attributes as the key of a series."""
    return tuple(sorted(attributes.items()))
