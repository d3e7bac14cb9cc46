"""Which traces single.yaml keeps: every one somebody will look for, and a share of the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.collector_config import otlp
from tests.collector_config.conftest import Pipeline
from tests.collector_config.sink import Sink
from tests.stack.servers import wait_until

FLAGGED: dict[str, dict[str, Any]] = {
    "failed": {"error": "boom"},
    "slow": {"attributes": {"pbmon.slow": True}},
    "slow query": {"attributes": {"pbmon.db.slow": True}},
    "over budget": {"attributes": {"pbmon.budget.exceeded": True}},
}
NOT_FLAGGED: dict[str, dict[str, Any]] = {
    "plain": {},
    "flags that say no": {
        "attributes": {"pbmon.slow": False, "pbmon.db.slow": False, "pbmon.budget.exceeded": False}
    },
    "flags of another type": {"attributes": {"pbmon.slow": "true"}},
    "a client's error": {"attributes": {"http.response.status_code": 404}},
}


def request(name: str, route: str = "/api/users", **flag: Any) -> list[Any]:
    """The spans of one request: its query, then the server span with the flag."""
    root = otlp.span(name, attributes={"http.route": route, **flag.pop("attributes", {})}, **flag)
    query = otlp.span(
        f"{name}: query", root.trace_id, parent=root.span_id, kind=otlp.CLIENT, attributes={}
    )
    return [query, root]


def names(sink: Sink, prefix: str) -> list[str]:
    return sorted(span.name for span in sink.spans() if span.name.startswith(prefix))


@pytest.mark.parametrize("flag", FLAGGED)
def test_a_flagged_trace_is_kept_whole(keeps_flagged: Pipeline, flag: str) -> None:
    keeps_flagged.send(otlp.traces(request(f"kept {flag}", **FLAGGED[flag])))

    keeps_flagged.sink.wait_for_span(f"kept {flag}")
    assert names(keeps_flagged.sink, f"kept {flag}") == [f"kept {flag}", f"kept {flag}: query"]


@pytest.mark.parametrize("flag", FLAGGED)
def test_a_flag_on_a_child_keeps_the_trace(keeps_flagged: Pipeline, flag: str) -> None:
    root = otlp.span(f"child {flag}")
    child = otlp.span(
        f"child {flag}: query",
        root.trace_id,
        parent=root.span_id,
        kind=otlp.CLIENT,
        **FLAGGED[flag],
    )
    keeps_flagged.send(otlp.traces([child, root]))

    keeps_flagged.sink.wait_for_span(f"child {flag}")
    assert len(names(keeps_flagged.sink, f"child {flag}")) == 2


@pytest.mark.parametrize("flag", NOT_FLAGGED)
def test_without_a_flag_nothing_is_kept_but_the_share(keeps_flagged: Pipeline, flag: str) -> None:
    before = keeps_flagged.decided("not_sampled")
    for _ in range(20):
        keeps_flagged.send(otlp.traces(request(f"dropped {flag}", **NOT_FLAGGED[flag])))

    wait_until(lambda: keeps_flagged.decided("not_sampled") >= before + 20, "20 decisions", 20)
    keeps_flagged.send(otlp.traces(request(f"after {flag}", error="boom")))
    keeps_flagged.sink.wait_for_span(f"after {flag}")
    assert names(keeps_flagged.sink, f"dropped {flag}") == []


def test_spans_that_waited_join_the_flagged_one(keeps_flagged: Pipeline) -> None:
    query, root = request("joined", error="boom")
    keeps_flagged.send(otlp.traces([query]))
    keeps_flagged.send(otlp.traces([root]))

    keeps_flagged.sink.wait_for_span("joined")
    keeps_flagged.sink.wait_for_span("joined: query")


def test_later_spans_of_a_kept_trace_follow(keeps_flagged: Pipeline) -> None:
    query, root = request("followed", error="boom")
    keeps_flagged.send(otlp.traces([root]))
    keeps_flagged.sink.wait_for_span("followed")
    keeps_flagged.send(otlp.traces([query]))

    keeps_flagged.sink.wait_for_span("followed: query")


def test_a_request_that_outlasts_the_wait_is_kept(keeps_flagged: Pipeline) -> None:
    """Its query was given up when the wait ended; the slow root that comes then must not be."""
    query, root = request("outlasting", attributes={"pbmon.slow": True})
    before = keeps_flagged.decided("not_sampled")
    keeps_flagged.send(otlp.traces([query]))
    wait_until(lambda: keeps_flagged.decided("not_sampled") > before, "the query's decision", 20)
    keeps_flagged.send(otlp.traces([root]))

    keeps_flagged.sink.wait_for_span("outlasting")


def test_the_share_of_the_rest_is_five_percent(
    pipelines: Callable[..., Pipeline],
) -> None:
    with Sink() as sink:
        running = pipelines(sink)
        for _ in range(20):
            spans = [span for _ in range(100) for span in request("share")]
            running.send(otlp.traces(spans))

        running.wait_for_metric(
            "otelcol_processor_tail_sampling_global_count_traces_sampled_total", 2000
        )
        kept = round(running.decided("sampled"))
        wait_until(lambda: len(names(sink, "share")) >= 2 * kept, "the kept traces", 20)
        # The ids come from a fixed seed, so this is the same number in every run.
        assert 60 <= kept <= 140
        assert len(names(sink, "share")) == 2 * kept


def test_a_flood_of_others_pushes_no_flagged_trace_out(
    pipelines: Callable[..., Pipeline],
) -> None:
    with Sink() as sink:
        small = "processors:\n  tail_sampling:\n    num_traces: 10\n"
        running = pipelines(sink, small, PBMON_TRACE_SAMPLE_PERCENT="0")
        for _ in range(20):
            others = [span for _ in range(50) for span in request("other")]
            running.send(otlp.traces([*others, *request("flagged", error="boom")]))

        wait_until(lambda: len(names(sink, "flagged")) >= 40, "the flagged traces", 20)
        assert len(names(sink, "flagged")) == 40


PROBES = ("/healthz", "/livez", "/readyz", "/health", "/metrics")


@pytest.mark.parametrize("key", ["http.route", "url.path"])
def test_probes_are_dropped(keeps_all: Pipeline, key: str) -> None:
    before = keeps_all.decided("not_sampled")
    for route in PROBES:
        probe = otlp.span(f"probe {key}", attributes={key: route})
        query = otlp.span(f"probe {key}", probe.trace_id, parent=probe.span_id, kind=otlp.CLIENT)
        keeps_all.send(otlp.traces([query, probe]))

    wait_until(
        lambda: keeps_all.decided("not_sampled") >= before + len(PROBES), "the decisions", 20
    )
    keeps_all.send(otlp.traces(request(f"no probe {key}")))
    keeps_all.sink.wait_for_span(f"no probe {key}")
    assert names(keeps_all.sink, f"probe {key}") == []


@pytest.mark.parametrize("flag", FLAGGED)
def test_a_failing_or_slow_probe_is_kept(keeps_flagged: Pipeline, flag: str) -> None:
    """It is why the orchestrator restarts the service."""
    keeps_flagged.send(otlp.traces(request(f"probe {flag}", "/healthz", **FLAGGED[flag])))

    keeps_flagged.sink.wait_for_span(f"probe {flag}")
    assert len(names(keeps_flagged.sink, f"probe {flag}")) == 2


@pytest.mark.parametrize("route", ["/health-records", "/api/metrics", "/healthz/{part}", "/"])
def test_a_route_that_only_looks_like_a_probe_is_kept(keeps_all: Pipeline, route: str) -> None:
    keeps_all.send(otlp.traces(request(f"alike {route}", route)))

    keeps_all.sink.wait_for_span(f"alike {route}")


def test_a_probe_path_on_a_route_of_its_own_is_kept(keeps_all: Pipeline) -> None:
    """The route decides; the path counts only where there is no route."""
    root = otlp.span("catch-all", attributes={"http.route": "/{path}", "url.path": "/health"})
    keeps_all.send(otlp.traces([root]))

    keeps_all.sink.wait_for_span("catch-all")
