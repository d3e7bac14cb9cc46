"""Meters: wrong measurements refused, series capped, a forked child that starts at 0."""

from __future__ import annotations

import math
import uuid
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import NoOpMeter, Observation

from pbmon import catalog, signals
from tests.telemetry.metered import REFUSED, Metered, synchronous, values


@pytest.fixture
def metered():
    return Metered()


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})


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


# --- zeros ---


def finite_counters():
    """Those of pbmon's own parts; `otel.sdk.*` tells of the exporters, and there are none here, nor
    is a store."""
    return [
        metric
        for metric in catalog.METRICS
        if metric.kind == "counter" and metric.stability == "pbmon" and not metric.of_store
        if metric.finite_series()
    ]


def test_there_are_finite_counters():
    assert {m.name for m in finite_counters()} >= {REFUSED}


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
        wiring.install_sinks(settings, trace.get_tracer("x"), meter, SystemClock(), None)
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
