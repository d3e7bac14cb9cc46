"""One number of one budget is changed in pbmon.toml, and nothing else: every artefact follows.

An artefact is a function in ARTEFACTS that is given a run of the application and asserts what the
artefact must say for the budget of that run. A new one is a function more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pbmon import catalog, settings
from pbmon.budgets import Budget
from tests.e2e.launch import ROOT, launched
from tests.stack.process import HOST, unused_port, wait_until
from tests.stack.servers import Prometheus
from tests.telemetry.receiver import Receiver

pytestmark = pytest.mark.server

CONFIG = ROOT / "collector-config" / "single.yaml"
# What the process sent, whatever the collector does with it.
COPY = """\
exporters:
  otlphttp/copy: {endpoint: "${env:COPY}", compression: none, sending_queue: {enabled: false}}
service:
  pipelines:
    traces/copy: {receivers: [otlp], exporters: [otlphttp/copy]}
    metrics/copy: {receivers: [otlp], exporters: [otlphttp/copy]}
"""
ROUTE = "/tasks/{number}"
TOML = """\
slow_request_s = "90s"

[[budgets]]
endpoint = "/tasks/{number}"
max = "MAX"
availability = AVAILABILITY
"""
PAUSE_S = 0.1
"""Of each request: beyond the one max, and on no machine beyond the other."""
REQUESTS = 3
RUNS = {
    "before": ("31s", "0.999"),
    "max": ("61ms", "0.999"),
    "availability": ("31s", "0.9"),
}


@dataclass
class Run:
    """One process with one text of pbmon.toml, which is over."""

    name: str
    service: str
    file: Path
    budget: Budget
    """As the file has it: the one source of what is expected."""
    sent: Receiver
    prometheus: Prometheus
    log: str
    judged: dict[str, Any]
    """What check_budget() said of PAUSE_S."""

    @property
    def exceeded(self) -> bool:
        return not self.budget.judge(PAUSE_S)

    def points(self, metric: catalog.Metric) -> dict[str, Any]:
        """Limit of a budget → data point, as it was sent last."""
        found = self.sent.metrics()[metric.name]
        of_it = getattr(found, found.WhichOneof("data")).data_points
        return {attributes(p).get(catalog.BUDGET_LIMIT.name, ""): p for p in of_it
                if attributes(p).get(catalog.ROUTE.name) == ROUTE}  # fmt: skip


def attributes(thing: Any) -> dict[str, Any]:
    return {p.key: getattr(p.value, p.value.WhichOneof("value")) for p in thing.attributes}


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory, stack_prometheus, stack_collector) -> Iterator[Run]:
    name = request.param
    service = f"budgets-{name}"
    home = tmp_path_factory.mktemp(name)
    file, log = home / "pbmon.toml", home / "app.log"
    max_s, availability = RUNS[name]
    file.write_text(TOML.replace("MAX", max_s).replace("AVAILABILITY", availability))
    resolved, problems = settings.resolve(environ={}, directory=home)
    assert problems == []
    (budget,) = resolved.budgets.all
    with Receiver() as sent:
        collector = stack_collector(
            [CONFIG, COPY],
            {
                "COPY": sent.url,
                "PBMON_PROMETHEUS_OTLP_ENDPOINT": stack_prometheus.otlp_endpoint,
                "PBMON_TEMPO_OTLP_ENDPOINT": f"{HOST}:{unused_port()}",
            },
        )
        environment = {
            "PBMON_CONFIG": str(file),
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
        }
        with launched("tests.e2e.budget_app:app", log, environment) as app:
            judged = drive(app.url)
            app.stop()
        run = Run(name, service, file, budget, sent, stack_prometheus, log.read_text(), judged)
        wait_until(lambda: catalog.BUDGET_REQUESTS.name in sent.metrics(), "metrics", 30)
        wait_until(lambda: len(work_spans(run)) == REQUESTS, "spans", 30)
        yield run
        collector.close()


def drive(base: str) -> dict[str, Any]:
    with httpx.Client(base_url=base, timeout=60) as client:
        for number in range(REQUESTS):
            assert client.get(f"/tasks/{number}?pause_s={PAUSE_S}").status_code == 200
        answer = client.get("/judge", params={"endpoint": ROUTE, "duration_s": PAUSE_S})
        return answer.json()


def work_spans(run: Run) -> list[Any]:
    return [span for span in run.sent.spans() if span.name == f"GET {ROUTE}"]


# --- the artefacts ------------------------------------------------------------------------------


def span_attributes(run: Run) -> None:
    for span in work_spans(run):
        found = attributes(span)
        took_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert found[catalog.BUDGET_EXCEEDED.name] is run.exceeded
        if run.exceeded:
            limits = found[catalog.BUDGET_LIMITS.name]
            assert [v.string_value for v in limits.values] == ["max"]
            excess_s = found[catalog.BUDGET_EXCESS.name]
            assert excess_s == pytest.approx(took_s - run.budget.max_s, abs=1e-6)
        else:
            assert catalog.BUDGET_LIMITS.name not in found
            assert catalog.BUDGET_EXCESS.name not in found


def log(run: Run) -> None:
    lines = [line for line in run.log.splitlines() if catalog.BUDGET_EXCEEDED_LOG.message in line]
    assert len(lines) == (REQUESTS if run.exceeded else 0)
    for line in lines:
        assert f"endpoint={ROUTE} method=GET" in line
        assert f"budget={run.budget.max_s:g} " in line


def counters(run: Run) -> None:
    requests = run.points(catalog.BUDGET_REQUESTS)
    breaches = run.points(catalog.BUDGET_BREACHES)
    assert {k: p.as_int for k, p in requests.items()} == {"max": REQUESTS, "availability": REQUESTS}
    assert {k: p.as_int for k, p in breaches.items()} == {
        "max": REQUESTS if run.exceeded else 0,
        "availability": 0,
    }


def threshold(run: Run) -> None:
    found = {k: p.as_double for k, p in run.points(catalog.BUDGET_THRESHOLD).items()}
    assert found == {"max": run.budget.max_s}


def allowed(run: Run) -> None:
    found = {k: p.as_double for k, p in run.points(catalog.BUDGET_ALLOWED).items()}
    assert found == {"max": 0.0, "availability": run.budget.allowed("availability")}


def histogram_edge(run: Run) -> None:
    (point,) = run.points(catalog.REQUEST_DURATION).values()
    edges = {*catalog.REQUEST_DURATION.buckets, 90.0, run.budget.max_s}
    assert set(point.explicit_bounds) == edges
    within = list(point.explicit_bounds).index(run.budget.max_s)
    assert sum(point.bucket_counts[: within + 1]) == (0 if run.exceeded else REQUESTS)


def verdict(run: Run) -> None:
    assert run.judged == {
        "within": not run.exceeded,
        "max_s": run.budget.max_s,
        "excess_s": PAUSE_S - run.budget.max_s if run.exceeded else 0.0,
    }


def in_prometheus(run: Run) -> None:
    """What rules and dashboards read."""

    def asked(metric: catalog.Metric, limit: str) -> float | None:
        labels = f'service_name="{run.service}",http_route="{ROUTE}",pbmon_budget_limit="{limit}"'
        selector = f"last_over_time({metric.prometheus_name}{{{labels}}}[10m])"
        found = run.prometheus.query(selector)
        return found[0][1] if found else None

    wait_until(lambda: asked(catalog.BUDGET_BREACHES, "max") is not None, "breaches", 30)
    breaches = REQUESTS if run.exceeded else 0
    assert asked(catalog.BUDGET_BREACHES, "max") == breaches
    assert asked(catalog.BUDGET_REQUESTS, "max") == REQUESTS
    assert asked(catalog.BUDGET_THRESHOLD, "max") == run.budget.max_s
    assert asked(catalog.BUDGET_ALLOWED, "availability") == run.budget.allowed("availability")


ARTEFACTS: tuple[Callable[[Run], None], ...] = (
    span_attributes,
    log,
    counters,
    threshold,
    allowed,
    histogram_edge,
    verdict,
    in_prometheus,
)


@pytest.mark.parametrize("artefact", ARTEFACTS, ids=lambda check: check.__name__)
def test_the_artefact_follows_the_number(run, artefact):
    artefact(run)


@pytest.mark.parametrize("changed", [name for name in RUNS if name != "before"])
def test_one_number_is_all_that_differs(changed):
    before, after = RUNS["before"], RUNS[changed]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
