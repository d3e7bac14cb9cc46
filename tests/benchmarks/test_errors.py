"""The benchmark of errors counts what it says it counts."""

from __future__ import annotations

import pytest

from benchmarks import errors

SIZE = 300


@pytest.fixture(autouse=True)
def no_settling(monkeypatch):
    monkeypatch.setattr(errors, "_SETTLE_S", 0.0)


def test_each_exception_is_one_of_its_own():
    found = list(errors.exceptions(50, 7))
    assert len({type(error).__name__ for error in found}) == 50
    assert all(type(error).__module__ == "shop" for error in found)


def test_each_is_in_the_store_and_the_report_has_both():
    ours = errors.measure(errors.OURS, "cost", SIZE)
    assert ours["cost_stored"] == SIZE
    assert 0 < ours["p50_us"] <= ours["p99_us"]
    ours["bytes"] = 1024.0
    theirs = errors.measure(errors.SENTRY, "cost", 20) | {"bytes": 1024.0}
    said = errors.report([{errors.OURS: ours, errors.SENTRY: theirs}])
    assert [line.split(" | ")[0] for line in said.splitlines()[2:]] == ["| pbmon", "| sentry_sdk"]
    assert f"| {SIZE} |" in said


@pytest.mark.faults
def test_a_hundred_thousand_distinct_ones_are_whole_and_take_little_memory():
    found = errors.measure(errors.OURS, "memory", 100_000)
    assert found["memory_stored"] == 100_000
    assert found["bytes"] <= errors.LIMIT_BYTES


def test_what_is_lost_or_too_dear_fails_it():
    good = {"cost_stored": 5, "memory_stored": 5, "cpu_mean_us": 9.0, "p50_us": 8.0, "bytes": 1e6}
    assert errors.holds(good, 5)
    for name, value in (
        ("cost_stored", 4), ("memory_stored", 6), ("cpu_mean_us", 31.0), ("p50_us", 31.0),
        ("bytes", 11e6),
    ):  # fmt: skip
        assert not errors.holds(good | {name: value}, 5)
