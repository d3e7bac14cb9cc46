"""Meters: wrong measurements refused, series capped, a forked child that starts at 0."""

from __future__ import annotations

import json
import math
import sys
import threading
import timeit
import uuid
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import NoOpMeter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource

from pbmon import catalog, signals
from pbmon.signals import MAX_SERIES
from pbmon.telemetry import meters
from pbmon.telemetry.meters import CheckedMeterProvider
from tests.fresh import python

REFUSED = "pbmon.refused_measurements"
OVERFLOW = (("otel.metric.overflow", True),)


class Metered:
    """A provider and what its reader reads: metric → attributes → point."""

    def __init__(self, cls=CheckedMeterProvider, views=(), **reader):
        self.reader = InMemoryMetricReader(**reader)
        self.provider = cls(
            [self.reader], resource=Resource.get_empty(), shutdown_on_exit=False, views=views
        )
        self.meter = self.provider.get_meter("test")

    def collect(self):
        return self.reader.get_metrics_data()

    def read(self):
        data = self.collect()
        return {
            metric.name: {
                tuple(sorted(point.attributes.items())): point for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def refused(self):
        return {
            dict(k)["pbmon.reason"]: p.value for k, p in self.read()[REFUSED].items() if p.value
        }

    def aggregations(self):
        """How many the SDK keeps, over all instruments but ours."""
        consumer = self.provider._measurement_consumer
        return sum(
            len(match._attributes_aggregation)
            for storage in consumer._reader_storages.values()
            for instrument, matches in storage._instrument_view_instrument_matches.items()
            for match in matches
            if instrument.name != REFUSED
        )


@pytest.fixture
def metered():
    return Metered()


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})


def values(points):
    return {key: point.value for key, point in points.items()}


# --- what it is ---


def test_it_is_the_sdks_own_provider(metered):
    from opentelemetry.sdk import metrics

    assert isinstance(metered.provider, metrics.MeterProvider)
    assert isinstance(metered.meter, metrics.Meter)
    assert metered.provider.get_meter("test") is metered.meter
    counter = metered.meter.create_counter("n", "{n}", "meaning")
    assert isinstance(counter, metrics.Counter)
    assert metered.meter.create_counter("n", "{n}", "meaning") is counter
    assert isinstance(metered.meter.create_gauge("g"), metrics._Gauge)
    counter.add(2, {"a": "b"})
    assert values(metered.read()["n"]) == {(("a", "b"),): 2}


def test_a_meter_without_the_sdk_is_left_alone(metered):
    metered.provider.shutdown()
    assert isinstance(metered.provider.get_meter("late"), NoOpMeter)


def test_every_reason_is_there_at_zero_from_the_start(metered):
    reasons = ("type", "not_finite", "negative", "out_of_range", "attributes")
    assert values(metered.read()[REFUSED]) == {(("pbmon.reason", r),): 0 for r in reasons}


# --- values ---


class NumPyLike:
    """As numpy.int64: a number by __index__, and no int."""

    def __index__(self):
        return 3


class Level(IntEnum):
    HIGH = 3


class Lying(int):
    def __index__(self):
        raise RuntimeError("secret")

    def __float__(self):
        raise RuntimeError("secret")

    def __le__(self, other):
        raise RuntimeError("secret")

    __lt__ = __ge__ = __gt__ = __le__


class Failing:
    def __float__(self):
        raise RuntimeError("secret")


TAKEN = [
    (3, 3), (0, 0), (0.5, 0.5), (True, 1), (Level.HIGH, 3), (NumPyLike(), 3), (Decimal("1.5"), 1.5),
    (Fraction(1, 4), 0.25), (2**40, 2**40), (2**63 - 1, float(2**63)), (-0.0, 0),
]  # fmt: skip
WRONG = [
    ("x", "type"), ("3", "type"), (None, "type"), (b"3", "type"), ([1], "type"), (1j, "type"),
    (object(), "type"), (Failing(), "type"), (Decimal("sNaN"), "type"),
    (math.nan, "not_finite"), (math.inf, "not_finite"), (-math.inf, "not_finite"),
    (Decimal("NaN"), "not_finite"), (Decimal("1e400"), "not_finite"),
    (2**70, "out_of_range"), (-(2**70), "out_of_range"), (10**400, "out_of_range"),
    (1e300, "out_of_range"), (Fraction(10**400), "out_of_range"),
]  # fmt: skip


def synchronous(meter):
    """Every synchronous instrument's method, with whether it takes numbers below 0."""
    return {
        "counter": (meter.create_counter("counter").add, False),
        "updown": (meter.create_up_down_counter("updown").add, True),
        "histogram": (meter.create_histogram("histogram").record, False),
        "gauge": (meter.create_gauge("gauge").set, True),
    }


@pytest.mark.parametrize("kind", ["counter", "updown", "histogram", "gauge"])
@pytest.mark.parametrize(("given", "counted"), TAKEN)
def test_numbers_are_taken(metered, kind, given, counted):
    synchronous(metered.meter)[kind][0](given)
    (point,) = metered.read()[kind].values()
    value = point.sum if kind == "histogram" else point.value
    assert value == counted
    assert type(value) in (int, float)
    assert metered.refused() == {}


@pytest.mark.parametrize("kind", ["counter", "updown", "histogram", "gauge"])
@pytest.mark.parametrize(("given", "reason"), WRONG)
def test_wrong_values_are_refused_and_counted(metered, kind, given, reason):
    measure = synchronous(metered.meter)[kind][0]
    measure(given)
    measure(given, {"a": 1})
    assert metered.refused() == {reason: 2}
    assert kind not in metered.read()


@pytest.mark.parametrize("kind", ["counter", "updown", "histogram", "gauge"])
@pytest.mark.parametrize("given", [-1, -0.5, -(2**40), Decimal(-1)])
def test_below_zero_is_for_what_can_fall(metered, kind, given):
    measure, falls = synchronous(metered.meter)[kind]
    measure(given)
    if falls:
        assert values(metered.read()[kind]) == {(): given}
        assert metered.refused() == {}
    else:
        assert metered.refused() == {"negative": 1}


def test_a_liar_is_taken_or_refused_and_never_raises(metered):
    for measure, _ in synchronous(metered.meter).values():
        measure(Lying(1))
    encode_metrics(metered.collect())


def test_no_sum_passes_what_a_receiver_takes(metered):
    """An integer beyond 64 bits fails the export that it is in, and every later one."""
    counter, updown = metered.meter.create_counter("n"), metered.meter.create_up_down_counter("u")
    histogram = metered.meter.create_histogram("h")
    for _ in range(5000):
        counter.add(2**62)
        updown.add(-(2**62))
        histogram.record(2**62)
    (point,) = metered.read()["n"].values()
    assert point.value == 5000 * 2.0**62
    encode_metrics(metered.collect())


def test_integers_stay_integers_and_exact(metered):
    counter = metered.meter.create_counter("n")
    for _ in range(1000):
        counter.add(2**32)
    assert values(metered.read()["n"]) == {(): 1000 * 2**32}
    assert type(next(iter(metered.read()["n"].values())).value) is int


# --- attributes ---


class Hostile:
    def __str__(self):
        raise RuntimeError("secret")


class HostileDict(dict):
    def items(self):
        raise RuntimeError("secret")


class Odd(str):
    __slots__ = ()

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return False


def nested(depth):
    found = "x"
    for _ in range(depth):
        found = [found]
    return found


CYCLE = []
CYCLE.append(CYCLE)
ID = uuid.UUID(int=7)

CLEANED = [
    ({"a": ["x", 1]}, {"a": ("x", 1)}),
    ({"a": ("x", "é")}, {"a": ("x", "é")}),
    ({"a": {"b": 1}}, {"a": {"b": 1}}),
    ({"a": "\ud800x"}, {"a": "?x"}),
    ({"\ud800": "x"}, {"?": "x"}),
    ({"a": ["\ud800"]}, {"a": ("?",)}),
    ({1: "x", "b": 2}, {"1": "x", "b": 2}),
    ({(1, 2): "x", None: 1, "b": 2}, {"(1, 2)": "x", "None": 1, "b": 2}),
    ({"a": 2**70}, {"a": str(2**70)}),
    ({"a": Level.HIGH}, {"a": 3}),
    ({"a": ID}, {"a": str(ID)}),
    ({"a": Decimal("1.50")}, {"a": "1.50"}),
    ({"a": None}, {"a": None}),
    ({"a": b"\xff"}, {"a": b"\xff"}),
    ({"a": Odd("x")}, {"a": "x"}),
    ({"": 1, "a": 1}, {"a": 1}),
    (MappingProxyType({"a": 1}), {"a": 1}),
    ({}, {}),
    (None, {}),
]
UNUSABLE = [
    "x", 7, [("a", 1)], [], object(), {"a": object()}, {object(): 1}, {"a": Hostile()},
    {Hostile(): 1}, HostileDict(a=1), MappingProxyType(HostileDict(a=1)), {"a": nested(9)},
    {"a": CYCLE}, {"a": range(10**12)}, {f"k{n}": n for n in range(200)} | {"é": 1},
]  # fmt: skip


@pytest.mark.parametrize("kind", ["counter", "updown", "histogram", "gauge"])
@pytest.mark.parametrize(("given", "kept"), CLEANED)
def test_attributes_are_cleaned_and_the_measurement_kept(metered, kind, given, kept, caplog):
    synchronous(metered.meter)[kind][0](1, given)
    data = metered.collect()
    (attributes,) = (
        dict(point.attributes)
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == kind
        for point in metric.data.data_points
    )
    assert attributes == kept
    assert set(map(type, attributes.values())) == set(map(type, kept.values()))
    assert encode_metrics(data).SerializeToString()
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["counter", "updown", "histogram", "gauge"])
@pytest.mark.parametrize("given", UNUSABLE, ids=lambda given: type(given).__name__)
def test_unusable_attributes_are_refused(metered, kind, given):
    if kind != "gauge":
        synchronous(metered.meter)[kind][0](1, {"fine": True})
    synchronous(metered.meter)[kind][0](1, given)
    assert metered.refused() == {"attributes": 1}


def test_what_is_not_ascii_is_plain_text(metered):
    metered.meter.create_counter("n").add(1, {"stadt": "Köln", "ключ": "✓"})
    assert list(metered.read()["n"]) == [(("stadt", "Köln"), ("ключ", "✓"))]


def test_told_once_for_each_instrument_and_reason_without_the_values(metered, caplog):
    one, other = metered.meter.create_counter("one"), metered.meter.create_counter("other")
    for _ in range(3):
        one.add("secret")
        one.add(-1)
        one.add(1, "secret")
        other.add(None, {"secret": "secret"})
    assert len(caplog.messages) == 4
    assert caplog.messages[0] == (
        "pbmon: a measurement of one was refused: its value is no number; pass an int or a float"
    )
    assert "secret" not in caplog.text
    assert {record.name for record in caplog.records} == {signals.INTERNAL_LOGGER}
    assert metered.refused() == {"type": 6, "negative": 3, "attributes": 3}


def test_any_other_fault_is_told_and_does_not_reach_the_caller(metered, monkeypatch, caplog):
    monkeypatch.setattr(signals, "reraise", False)
    metered.meter.create_histogram("h").record(1, {}, context="no context")
    metered.meter.create_histogram("h").record(2)
    assert "measuring h failed with AttributeError" in caplog.text
    assert metered.read()["h"][()].sum == 2


# --- observables ---


@pytest.mark.parametrize("kind", ["counter", "up_down_counter", "gauge"])
def test_wrong_observations_leave_the_others_in(metered, kind, caplog):
    def read(_options):
        yield Observation(1, {"a": "fine"})
        yield Observation("x", {"a": "type"})
        yield Observation(math.nan, {"a": "nan"})
        yield Observation(2**70, {"a": "large"})
        yield Observation(2, {"a": object()})
        yield "no observation"
        yield Observation(-1, {"a": "below"})
        yield Observation(Decimal("2.5"), {"a": "\ud800"})

    getattr(metered.meter, f"create_observable_{kind}")("o", [read])
    seen = values(metered.read()["o"])
    below = {} if kind == "counter" else {(("a", "below"),): -1}
    assert seen == {(("a", "fine"),): 1, (("a", "?"),): 2.5} | below
    refused = {"type": 2, "not_finite": 1, "out_of_range": 1, "attributes": 1}
    negative = {"negative": 1} if kind == "counter" else {}
    encode_metrics(metered.collect())
    # The count of refusals is read before the callbacks: it has those of the two readings before.
    assert metered.refused() == {reason: n * 2 for reason, n in (refused | negative).items()}


def test_a_generator_may_be_the_callback(metered):
    def readings():
        options = yield
        for n in (1, 2):
            assert options is not None
            options = yield [Observation(n), Observation("x", {"a": 1})]

    metered.meter.create_observable_counter("o", [readings()])
    assert [values(metered.read()["o"]) for _ in range(2)] == [{(): 1}, {(): 2}]
    metered.read()  # it has ended
    assert metered.refused() == {"type": 2}


def test_a_failing_callback_is_the_sdks_to_report(metered, caplog):
    def fail(_options):
        yield Observation(1)
        raise RuntimeError("broken")

    metered.meter.create_observable_gauge("o", [fail])
    assert values(metered.read()["o"]) == {(): 1}
    assert "Callback failed for instrument o" in caplog.text


# --- the cap ---


@pytest.mark.parametrize("kind", ["counter", "updown", "histogram"])
def test_memory_is_bounded_and_nothing_is_lost(metered, kind):
    measure = synchronous(metered.meter)[kind][0]
    for n in range(20_000):
        measure(2, {"path": f"/{n}"})
    measure(5, {"path": "/0"})
    points = metered.read()[kind]
    assert len(points) == metered.aggregations() == MAX_SERIES + 1

    def total(point):
        return point.sum if kind == "histogram" else point.value

    assert total(points[OVERFLOW]) == 2 * 18_000
    assert total(points[("path", "/0"),]) == 7
    assert sum(map(total, points.values())) == 2 * 20_000 + 5
    if kind == "histogram":
        assert points[OVERFLOW].count == 18_000


def test_order_of_attributes_and_equal_numbers_do_not_get_past_the_cap(metered):
    counter = metered.meter.create_counter("n")
    counter.add(1, {"a": 1, "b": 2})
    counter.add(1, {"b": 2, "a": 1})
    counter.add(1, {"a": 1.0, "b": 2})
    counter.add(1, {"a": True, "b": 2})
    assert metered.aggregations() == 3


@pytest.mark.parametrize("kind", ["counter", "up_down_counter", "gauge"])
def test_observables_have_the_same_cap(metered, kind):
    def read(_options):
        return [Observation(3, {"n": n}) for n in range(5000)]

    getattr(metered.meter, f"create_observable_{kind}")("o", [read])
    for _ in range(3):
        points = values(metered.read()["o"])
        assert len(points) == metered.aggregations() == MAX_SERIES + 1
        if kind != "gauge":
            assert points[OVERFLOW] == 3 * 3000
            assert sum(points.values()) == 3 * 5000


def test_an_overflow_that_was_counted_before_is_the_same_series(metered):
    counter = metered.meter.create_counter("n")
    counter.add(1, dict(OVERFLOW))
    for n in range(MAX_SERIES + 10):
        counter.add(1, {"n": n})
    counter.add(1, dict(OVERFLOW))
    points = metered.read()["n"]
    assert len(points) == MAX_SERIES + 1
    assert points[OVERFLOW].value == 12


def test_the_cap_is_of_what_a_view_leaves():
    metered = Metered(views=[View(instrument_name="n", attribute_keys={"kept"})])
    counter = metered.meter.create_counter("n")
    for n in range(5000):
        counter.add(1, {"kept": n % 2, "dropped": n})
    assert values(metered.read()["n"]) == {(("kept", 0),): 2500, (("kept", 1),): 2500}


def test_a_reader_added_later_is_capped(metered):
    counter = metered.meter.create_counter("n")
    later = InMemoryMetricReader()
    metered.provider.add_metric_reader(later)
    for n in range(3000):
        counter.add(1, {"n": n})
    assert metered.aggregations() == 2 * (MAX_SERIES + 1)


def test_delta_sums_stay_exact_beyond_the_cap():
    from opentelemetry.sdk.metrics import Counter

    metered = Metered(preferred_temporality={Counter: AggregationTemporality.DELTA})
    counter = metered.meter.create_counter("n")
    totals = []
    for turn in range(3):
        for n in range(3000):
            counter.add(1, {"n": n, "turn": turn})
        totals.append(sum(point.value for point in metered.read()["n"].values()))
    assert totals == [3000] * 3


def test_threads_lose_nothing_at_the_cap(metered):
    counter = metered.meter.create_counter("n")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:

        def add(part):
            for n in range(1500):
                counter.add(1, {"n": n, "part": part})

        threads = [threading.Thread(target=add, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    points = metered.read()["n"]
    assert len(points) == MAX_SERIES + 1
    assert sum(point.value for point in points.values()) == 6000


def test_it_costs_little():
    """Against the stock provider; the bound leaves room for a busy machine."""
    attributes = {"http.route": "/users/{id}", "http.request.method": "GET", "status": 200}
    counters = [
        Metered(cls).meter.create_counter("n") for cls in (MeterProvider, CheckedMeterProvider)
    ]
    best = [math.inf, math.inf]
    for _ in range(15):
        for n, counter in enumerate(counters):
            taken = timeit.timeit(lambda c=counter: c.add(1, attributes), number=1000)
            best[n] = min(best[n], taken)
    assert best[1] < best[0] * 1.4


# --- after a fork ---

FORK = """
    import json, os, sys, threading
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource
    import pbmon
    from pbmon import catalog, runtime, signals, wiring
    from pbmon.settings import resolve
    from pbmon.telemetry import meters
    from pbmon.telemetry.clock import SystemClock
    from opentelemetry import trace
    from tests.telemetry.drive import http

    reader = InMemoryMetricReader()
    provider = meters.CheckedMeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("pbmon")
    runtime.active.settings, _ = resolve({"features": ["export"], "slow_request_s": 1e-9,
        "budgets": [pbmon.Budget("/x", max_s=1e-9)]})
    wiring.install_sinks(runtime.active.settings, trace.get_tracer("x"), meter, SystemClock())
    counter = meter.create_counter("n")
    updown = meter.create_up_down_counter("u")
    histogram = meter.create_histogram("h")
    gauge = meter.create_gauge("g")

    def count(times):
        for _ in range(times):
            counter.add(1, {"a": "b"})
            updown.add(1)
            histogram.record(0.5)
            gauge.set(7)
            counter.add("wrong")
            record = runtime.active.requests.request(http())
            record.route = "/x"
            record.response_started(200, ())
            record.response_completed()
            record.closed()
            pbmon.track_feature("export", "viewed")
            pbmon.track_revenue("1.10", "EUR", transaction_id="t")

    def read():
        return {
            m.name + "|" + ",".join(map(str, sorted(p.attributes.items()))):
                [getattr(p, "count", getattr(p, "value", None)), p.start_time_unix_nano]
            for r in reader.get_metrics_data().resource_metrics
            for s in r.scope_metrics for m in s.metrics for p in m.data.data_points
        }

    def fork(child):
        taken, given = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(given, json.dumps(child()).encode() + b"\\n")
            finally:
                os._exit(0)
        os.close(given)
        with os.fdopen(taken) as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        return json.loads(text)
"""


def forked(code):
    return json.loads(python(FORK + code).stdout)


def total(read, start):
    return sum(value for key, (value, _) in read.items() if key.startswith(start))


COUNTS = [
    "n|", "u|", "h|", "http.server.request.duration|", "pbmon.http.server.slow_requests|",
    "pbmon.budget.requests|", "pbmon.budget.breaches|", "pbmon.feature.usage|",
    "pbmon.transactions|", "pbmon.refused_measurements|",
]  # fmt: skip


def test_two_children_count_their_own_and_the_parent_all_of_its_own():
    found = forked("""
    os.register_at_fork(after_in_child=signals.forget)
    os.register_at_fork(after_in_child=lambda: meters.forget(provider))
    count(100)
    before = read()

    def child():
        first = read()
        count(2)
        return [first, read()]

    children = [fork(child), fork(child)]
    count(1)
    print(json.dumps([before, children, read()]))
    """)
    before, children, after = found
    for name in COUNTS:
        assert total(before, name) == 100, name
        for first, last in children:
            assert total(first, name) == 0, name
            assert total(last, name) == 2, name
        assert total(after, name) == 101, name
    assert total(before, "pbmon.revenue|") == pytest.approx(110)
    for first, last in children:
        assert total(first, "pbmon.revenue|") == 0
        assert total(last, "pbmon.revenue|") == pytest.approx(2.2)
        # What was there at 0 is there at 0 again, and nothing of it is from before the fork.
        assert not any(key.startswith("g|") for key in first)
        assert before.keys() - {"g|"} == first.keys()
        ended = max(start or 0 for _, start in before.values())
        assert min(start for _, start in first.values() if start is not None) > ended


def test_locks_held_by_other_threads_do_not_hang_the_child():
    found = forked("""
    count(3)
    consumer = provider._measurement_consumer
    locks = [consumer._lock, signals._reading, runtime.active.revenue._lock, reader._lock]
    for storage in consumer._reader_storages.values():
        locks.append(storage._lock)
        for matches in storage._instrument_view_instrument_matches.values():
            for match in matches:
                locks.append(match._lock)
                for aggregation in match._attributes_aggregation.values():
                    locks += [aggregation._lock, aggregation._reservoir._lock]
    for meter_ in provider._meters.values():
        locks += [meter_._instrument_registration_lock, meter_._instrument_ids_lock]
    locks += [part._lock for part in signals._forgetful if hasattr(part, "_lock")]
    locks = list({id(lock): lock for lock in locks}.values())
    held, let_go = threading.Event(), threading.Event()

    def hold():
        for lock in locks:
            lock.acquire()
        held.set()
        let_go.wait()
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    def child():
        signals.forget()
        meters.forget(provider)
        count(2)
        meter.create_counter("new").add(1, {"a": "b"})
        requests = runtime.active.requests
        requests.slow.cell((("http.route", "/new"),)).up()
        return read()

    found = fork(child)
    let_go.set()
    holder.join()
    print(json.dumps(found))
    """)
    assert total(found, "n|") == total(found, "pbmon.feature.usage|") == 2
    assert total(found, "new|") == 1
    assert total(found, "pbmon.http.server.slow_requests|") == 3


def test_the_cap_starts_again_in_the_child():
    """The parent had more sets than it keeps: the child begins without any of them."""
    found = forked("""
    few = meter.create_counter("few")
    few.add(0, {"zero": "initialised"})
    for n in range(3000):
        counter.add(1, {"n": n})

    def child():
        signals.forget()
        meters.forget(provider)
        first = read()
        for n in range(10):
            counter.add(1, {"n": n})
            counter.add(1, {"new": n})
        return [first, read()]

    print(json.dumps(fork(child)))
    """)
    first, last = found
    assert [key for key in first if key.startswith("n|")] == []
    assert first["few|('zero', 'initialised')"][0] == 0
    counted = {key: value for key, (value, _) in last.items() if key.startswith("n|")}
    assert set(counted.values()) == {1}
    assert len(counted) == 20


def test_an_export_under_way_in_the_parent_does_not_hold_up_the_child():
    """Its lock is held for as long as a receiver takes."""
    printed = python("""
    import os, threading
    from opentelemetry.sdk.metrics.export import (
        InMemoryMetricReader, MetricExporter, MetricExportResult, PeriodicExportingMetricReader)
    from pbmon.telemetry import meters

    started, let_go = threading.Event(), threading.Event()
    parent = os.getpid()

    class Exporter(MetricExporter):
        def export(self, data, timeout_millis=0, **kwargs):
            if os.getpid() == parent:
                started.set()
                let_go.wait()
            else:
                os.write(1, b"exported by the child")
            return MetricExportResult.SUCCESS

        def shutdown(self, timeout_millis=0, **kwargs):
            pass

        def force_flush(self, timeout_millis=0):
            return True

    provider = meters.CheckedMeterProvider(
        [PeriodicExportingMetricReader(Exporter(), float("inf"))], shutdown_on_exit=False)
    provider.get_meter("x").create_counter("n").add(1)
    flushing = threading.Thread(target=provider.force_flush)
    flushing.start()
    started.wait()
    if os.fork() == 0:
        meters.forget(provider)
        provider.force_flush()
        os._exit(0)
    os.wait()
    let_go.set()
    flushing.join()
    """).stdout
    assert printed == "exported by the child"


def test_what_is_open_in_the_parent_is_not_open_in_the_child():
    found = forked("""
    open_ = runtime.active.requests.request(http())
    session = runtime.active.requests.websocket(http() | {"type": "websocket", "scheme": "ws"})
    session.route = "/ws"
    session.accepted()

    def child():
        signals.forget()
        meters.forget(provider)
        return [read(), pbmon.websocket_connections()]

    print(json.dumps([read(), fork(child)]))
    """)
    before, (child, connections) = found
    names = ["http.server.active_requests|", "pbmon.websocket.connections|"]
    assert [total(before, name) for name in names] == [1, 1]
    assert [total(child, name) for name in names] == [0, 0]
    assert connections == 0


def test_the_sdks_own_provider_forgets_as_well():
    metered = Metered(MeterProvider)
    counter = metered.meter.create_counter("n")
    counter.add(5, {"a": 1})
    meters.forget(metered.provider)
    assert values(metered.read()["n"]) == {(("a", 1),): 0}
    counter.add(2, {"a": 1})
    assert values(metered.read()["n"]) == {(("a", 1),): 2}


# --- zeros ---


def finite_counters():
    """Those of pbmon's own parts; `otel.sdk.*` tells of the exporters, and there are none here."""
    return [
        metric
        for metric in catalog.METRICS
        if metric.kind == "counter" and metric.stability == "pbmon" and metric.finite_series()
    ]


def test_there_are_finite_counters():
    assert {m.name for m in finite_counters()} >= {"pbmon.transactions", REFUSED}


@pytest.fixture(scope="module")
def started():
    """All that pbmon exports before anything happened."""
    from opentelemetry import trace

    from pbmon import runtime, wiring
    from pbmon.budgets import Budget
    from pbmon.settings import resolve
    from pbmon.telemetry.clock import SystemClock
    from pbmon.testing import capture

    with capture():  # puts the runtime back
        metered = Metered()
        settings, problems = resolve(
            {
                "features": ["export", "import"],
                "budgets": [
                    Budget("/a", max_s=1, p95_s=0.5, p99_s=0.7, availability=0.99),
                    Budget("/b", max_s=1, method="GET"),
                ],
            },
            {},
        )
        assert not problems
        runtime.active.settings = settings
        meter = metered.provider.get_meter("pbmon")
        wiring.install_sinks(settings, trace.get_tracer("x"), meter, SystemClock())
        return {name: values(points) for name, points in metered.read().items()}


@pytest.mark.parametrize("metric", finite_counters(), ids=lambda metric: metric.name)
def test_a_counter_of_finite_sets_is_there_at_zero(started, metric):
    assert started[metric.name] == {signals.key(a): 0 for a in metric.finite_series()}


def test_counters_whose_sets_the_settings_name_are_there_at_zero(started):
    assert started["pbmon.feature.usage"] == {
        (("pbmon.feature.action", action), ("pbmon.feature.name", feature)): 0
        for feature in ("export", "import")
        for action in ("viewed", "clicked", "completed")
    }
    limits = {("/a", limit) for limit in ("max", "p95", "p99", "availability")} | {("/b", "max")}
    for name in ("pbmon.budget.requests", "pbmon.budget.breaches"):
        assert set(started[name].values()) == {0}
        found = {(dict(k)["http.route"], dict(k)["pbmon.budget.limit"]) for k in started[name]}
        assert found == limits


# --- what a reader asks for ---


TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
HISTOGRAM = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"


@pytest.mark.parametrize(
    "value", [None, "cumulative", "delta", "lowmemory", "DELTA", " LowMemory ", "", "sideways"]
)
def test_temporality_is_what_the_stock_exporter_asks_for(monkeypatch, value):
    environ = {} if value is None else {TEMPORALITY: value}
    monkeypatch.delenv(TEMPORALITY, raising=False)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    stock = OTLPMetricExporter()
    assert meters.preferred_temporality(environ) == stock._preferred_temporality
    stock.shutdown()


@pytest.mark.parametrize(
    "value",
    [
        None, "explicit_bucket_histogram", "base2_exponential_bucket_histogram",
        " BASE2_exponential_bucket_histogram", "", "linear",
    ],
)  # fmt: skip
def test_aggregation_is_what_the_stock_exporter_asks_for(monkeypatch, value):
    environ = {} if value is None else {HISTOGRAM: value}
    monkeypatch.delenv(HISTOGRAM, raising=False)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    stock = OTLPMetricExporter()

    def shape(found):
        return {kind: (type(how), vars(how)) for kind, how in found.items()}

    assert shape(meters.preferred_aggregation(environ)) == shape(stock._preferred_aggregation)
    stock.shutdown()


def test_a_wrong_preference_is_one_line_with_the_remedy(caplog):
    for _ in range(2):
        meters.preferred_temporality({TEMPORALITY: "sideways"})
        meters.preferred_aggregation({HISTOGRAM: "linear"})
    meters.preferred_temporality({TEMPORALITY: ""})
    assert caplog.messages == [
        f"pbmon: {variable} is none of {choices}; set it to one of them"
        for variable, choices in (
            (TEMPORALITY, "cumulative, delta, lowmemory"),
            (HISTOGRAM, "explicit_bucket_histogram, base2_exponential_bucket_histogram"),
        )
    ]


def test_a_reader_takes_what_is_preferred():
    environ = {TEMPORALITY: "delta", HISTOGRAM: "base2_exponential_bucket_histogram"}
    metered = Metered(
        preferred_temporality=meters.preferred_temporality(environ),
        preferred_aggregation=meters.preferred_aggregation(environ),
    )
    counter, histogram = metered.meter.create_counter("n"), metered.meter.create_histogram("h")
    counter.add(2)
    histogram.record(4.0)
    first = metered.read()
    counter.add(3)
    assert (first["n"][()].value, metered.read()["n"][()].value) == (2, 3)
    assert first["h"][()].scale == 20
    assert (first["h"][()].count, first["h"][()].sum) == (1, 4.0)
