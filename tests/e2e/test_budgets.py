"""One number of one budget is changed in pbmon.toml, and nothing else: every artefact follows.

An artefact is a function in ARTEFACTS that is given a run of the application and asserts what the
artefact must say for the budget of that run. A new one is a function more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from grafana.rules import budgets as budget_rules
from pbmon import catalog, settings
from pbmon.budgets import Budget
from pbmon.reports.budgets import of as budgets_of
from pbmon.reports.metrics import Metrics
from pbmon.reports.page import Amount
from pbmon.reports.week import Span
from tests.e2e.launch import ROOT, launched
from tests.fresh import environment
from tests.grafana.panel_queries import panel_queries
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
p95 = "P95"
availability = AVAILABILITY
"""
PAUSE_S = 0.1
"""Of each request: beyond the one max, and on no machine beyond the other."""
REQUESTS = 3
RUNS = {
    "before": ("31s", "60ms", "0.999"),
    "max": ("80ms", "60ms", "0.999"),
    "p95": ("31s", "20s", "0.999"),
    "availability": ("31s", "60ms", "0.9"),
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

    @property
    def limits(self) -> list[str]:
        """That each request has passed."""
        return list(self.budget.judge(PAUSE_S).limits)

    @property
    def breaches(self) -> dict[str, int]:
        return {each: REQUESTS if each in self.limits else 0 for each in self.budget.limits}

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
    max_s, p95_s, availability = RUNS[name]
    text = TOML.replace("MAX", max_s).replace("P95", p95_s).replace("AVAILABILITY", availability)
    file.write_text(text)
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
        variables = {
            "PBMON_CONFIG": str(file),
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
            "PBMON_REQUESTS_FILE": str(file.with_name("requests.jsonl")),
        }
        with launched("tests.e2e.budget_app:app", log, variables) as app:
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
        if run.limits:
            limits = found[catalog.BUDGET_LIMITS.name]
            assert [v.string_value for v in limits.values] == run.limits
        else:
            assert catalog.BUDGET_LIMITS.name not in found
        if run.exceeded:
            excess_s = found[catalog.BUDGET_EXCESS.name]
            assert excess_s == pytest.approx(took_s - run.budget.max_s, abs=1e-6)
        else:
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
    assert {k: p.as_int for k, p in requests.items()} == dict.fromkeys(run.budget.limits, REQUESTS)
    assert {k: p.as_int for k, p in breaches.items()} == run.breaches


def threshold(run: Run) -> None:
    found = {k: p.as_double for k, p in run.points(catalog.BUDGET_THRESHOLD).items()}
    assert found == run.budget.thresholds


def allowed(run: Run) -> None:
    found = {k: p.as_double for k, p in run.points(catalog.BUDGET_ALLOWED).items()}
    assert found == {each: run.budget.allowed(each) for each in run.budget.limits}


def histogram_edge(run: Run) -> None:
    (point,) = run.points(catalog.REQUEST_DURATION).values()
    edges = {*catalog.REQUEST_DURATION.buckets, 90.0, *run.budget.thresholds.values()}
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


def rules(run: Run) -> None:
    """What the recorded share of each budget would be in the evaluation to come."""
    (rule,) = [
        rule
        for group in budget_rules.GROUPS
        for rule in group.rules
        if getattr(rule, "name", None) == "pbmon:budget_allowed:ratio"
    ]
    found = {
        labels["pbmon_budget_limit"]: share
        for labels, share in run.prometheus.query(rule.expr)
        if labels["service_name"] == run.service
    }
    assert found == {each: run.budget.allowed(each) for each in run.budget.limits}


def dashboard(run: Run) -> None:
    """Columns of the table, and the panel of what is broken."""
    queries = panel_queries("budgets", "Budgets", service=run.service, range_="10m")
    limits, requests, breaches = (
        {
            labels["pbmon_budget_limit"]: value
            for labels, value in run.prometheus.query(query)
            if labels.get("http_route") == ROUTE
        }
        for query in queries[:3]
    )
    assert limits == run.budget.thresholds
    assert requests == dict.fromkeys(run.budget.limits, REQUESTS)
    assert breaches == run.breaches


def gate(run: Run) -> None:
    """Of the requests as they were recorded, and of those that Prometheus has counted."""
    for source in (
        [str(run.file.with_name("requests.jsonl"))],
        ["--prometheus", run.prometheus.url, "--service", run.service],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pbmon.cli", "budget", "check", *source, "--json"],
            env=environment(PBMON_CONFIG=str(run.file)), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        found = {each["limit"]: each for each in json.loads(done.stdout)["budgets"]}
        assert found["max"]["threshold_s"] == run.budget.max_s
        assert found["p95"]["threshold_s"] == run.budget.p95_s
        assert found["p95"]["over"] == run.breaches["p95"]
        assert found["availability"]["allowed"] == run.budget.allowed("availability")
        assert found["max"]["requests"] == REQUESTS
        assert found["max"]["over"] == (REQUESTS if run.exceeded else 0)
        assert done.returncode == (1 if run.limits else 0)


def report(run: Run) -> None:
    now = time.time_ns() // 1000
    resolved = settings.Settings(prometheus_url=run.prometheus.url)
    metrics = Metrics(resolved, run.service, None)
    try:
        part = budgets_of(
            Span(now - 1_200_000_000, now - 600_000_000, now + 1_000_000, "now", "before"), metrics
        )
    finally:
        metrics.close()
    (table,) = part.section.tables
    (row,) = [row for row in table.rows if "max" in row]
    assert [cell.value for cell in row if isinstance(cell, Amount)][:3] == [
        Decimal(str(run.budget.max_s)), REQUESTS, REQUESTS if run.exceeded else 0,
    ]  # fmt: skip


ARTEFACTS: tuple[Callable[[Run], None], ...] = (
    span_attributes,
    log,
    counters,
    threshold,
    allowed,
    histogram_edge,
    verdict,
    in_prometheus,
    rules,
    dashboard,
    gate,
    report,
)


@pytest.mark.parametrize("artefact", ARTEFACTS, ids=lambda check: check.__name__)
def test_the_artefact_follows_the_number(run, artefact):
    artefact(run)


@pytest.mark.parametrize("changed", [name for name in RUNS if name != "before"])
def test_one_number_is_all_that_differs(changed):
    before, after = RUNS["before"], RUNS[changed]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
