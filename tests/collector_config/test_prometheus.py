"""prometheus.yml on the real Prometheus, behind the real collector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collector_config import otlp
from tests.collector_config.conftest import Pipeline, pipeline
from tests.collector_config.paths import CONFIG, load
from tests.collector_config.sink import Sink
from tests.stack.plugin import missing, started
from tests.stack.programs import MissingProgram
from tests.stack.servers import Prometheus, promtool, wait_until

FILE = CONFIG / "prometheus.yml"


def check(path: Path) -> str:
    try:
        return promtool("check", "config", "--lint=all", "--lint-fatal", path)
    except MissingProgram as absent:
        missing(absent.name, absent.reason)


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    with started(Prometheus(FILE)) as running:
        yield running


@pytest.fixture(scope="module")
def before_prometheus(prometheus: Prometheus) -> Iterator[Pipeline]:
    sink = Sink()  # nobody listens there: the traces wait in the queue
    endpoint = {"PBMON_PROMETHEUS_OTLP_ENDPOINT": prometheus.otlp_endpoint}
    with pipeline(sink, **endpoint) as running:
        yield running


def test_promtool_accepts_it() -> None:
    assert "SUCCESS" in check(FILE)


@pytest.mark.parametrize("place", ["scrape", "scrape/compose"])
def test_promtool_accepts_what_it_scrapes(tmp_path: Path, place: str) -> None:
    """On one host and in compose.yaml; each as Prometheus would find it."""
    (tmp_path / "scrape").mkdir()
    for path in (CONFIG / place).glob("*.yml"):
        (tmp_path / "scrape" / path.name).write_bytes(path.read_bytes())
    (tmp_path / FILE.name).write_bytes(FILE.read_bytes())
    (tmp_path / "rules").symlink_to(CONFIG / "rules")
    (tmp_path / "alertmanagers").symlink_to(CONFIG / place.replace("scrape", "alertmanagers"))

    check(tmp_path / FILE.name)
    jobs = load(tmp_path / "scrape" / "collector.yml")["scrape_configs"]
    assert "collector" in {job["job_name"] for job in jobs}


def test_it_names_no_file_that_is_not_there() -> None:
    config = load(FILE)
    [alertmanagers] = config["alerting"]["alertmanagers"]
    [found] = alertmanagers["file_sd_configs"]
    for pattern in [*config["rule_files"], *config["scrape_config_files"], *found["files"]]:
        assert list(CONFIG.glob(pattern)), pattern


def test_a_counter_arrives_with_its_labels(
    before_prometheus: Pipeline, prometheus: Prometheus
) -> None:
    about = {"service.namespace": "pocketbook", "deployment.environment.name": "test"}
    before_prometheus.send(
        otlp.counter(
            "pbmon.revenue",
            1234.56,
            attributes={"pbmon.currency": "EUR"},
            instance="7c1f",
            resource={**about, "host.name": "not a label"},
        )
    )
    wait_until(lambda: bool(prometheus.query("pbmon_revenue_total")), "the counter", 20)

    [(labels, value)] = prometheus.query("pbmon_revenue_total")
    assert value == 1234.56
    assert labels == {
        "__name__": "pbmon_revenue_total",
        "job": "pocketbook/shop",
        "instance": "7c1f",
        "service_name": "shop",
        "service_namespace": "pocketbook",
        "deployment_environment_name": "test",
        "pbmon_currency": "EUR",
    }


def test_a_join_with_target_info_works_by_name(
    before_prometheus: Pipeline, prometheus: Prometheus
) -> None:
    export = otlp.counter("pbmon.errors", 1, instance="i", resource={"os": "x"})
    before_prometheus.send(export)
    query = 'target_info{service_name="shop", instance="i", os="x"}'
    wait_until(lambda: bool(prometheus.query(query)), "target_info", 20)


def test_an_exemplar_arrives_with_its_trace_and_nothing_else(
    before_prometheus: Pipeline, prometheus: Prometheus
) -> None:
    before_prometheus.send(otlp.counter("pbmon.events", 1, exemplar={"user": "Lovelace"}))
    found = "pbmon_events_total"
    wait_until(lambda: bool(prometheus.exemplars(found)), "the exemplar", 20)

    [(_, labels, _)] = prometheus.exemplars(found)
    # The name that grafana/provisioning/datasources gives to the link.
    assert set(labels) == {"trace_id", "span_id"}
