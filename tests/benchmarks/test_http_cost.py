"""The benchmark measures what it says: the sending is inside it, and its verdict is its exit."""

from __future__ import annotations

import pytest

from benchmarks import http_cost, processes

REQUESTS = 60


@pytest.fixture(scope="module")
def sink():
    with processes.receiving() as url:
        yield url


@pytest.mark.parametrize("variant", http_cost.VARIANTS)
def test_everything_has_arrived_when_the_clock_stops(variant, sink, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")  # the caller's settings are not ours
    measured = http_cost.measure(variant, REQUESTS, sink)
    assert measured.spans == (0 if variant == "bare" else REQUESTS)
    assert measured.us > 0


@pytest.mark.parametrize(("pbmon", "status"), [(150.0, 0), (200.0, 1)])
def test_costing_as_much_as_upstream_is_a_failure(pbmon, status, monkeypatch, capsys):
    costs = {"bare": 100.0, "upstream": 200.0, "pbmon": pbmon}
    monkeypatch.setattr(http_cost, "measure", lambda name, requests, sink: http_cost.Measured(
        costs[name], 0 if name == "bare" else requests
    ))  # fmt: skip
    monkeypatch.setattr("sys.argv", ["http_cost", "--rounds", "3"])
    assert http_cost.main() == status
    assert f"pbmon / upstream: {(pbmon - 100) / 100:.2f}" in capsys.readouterr().out


def test_a_span_that_came_too_late_voids_the_comparison(monkeypatch):
    late = http_cost.Measured(100.0, 5)
    monkeypatch.setattr(http_cost, "measure", lambda name, requests, sink: late)
    monkeypatch.setattr("sys.argv", ["http_cost"])
    with pytest.raises(SystemExit, match=r"bare: 5 spans of 0 arrived; the comparison is void"):
        http_cost.main()
