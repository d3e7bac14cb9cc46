"""single.yaml as a file: valid, loopback unless told otherwise, and in the order that protects."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

import pytest
import yaml

from tests.collector_config import otlp
from tests.collector_config.conftest import Pipeline
from tests.collector_config.paths import ENVIRONMENT, SINGLE, logs_overlay
from tests.stack.plugin import missing
from tests.stack.programs import MissingProgram
from tests.stack.servers import collector_validate


def with_defaults() -> Any:
    """The configuration as it is where no variable is set."""
    text = SINGLE.read_text(encoding="utf-8")
    return yaml.safe_load(ENVIRONMENT.sub(lambda found: found["default"] or "", text))


def validate(*configs: Any, **env: str) -> None:
    try:
        collector_validate(list(configs), env)
    except MissingProgram as absent:
        missing(absent.name, absent.reason)


def test_the_collector_accepts_it() -> None:
    validate(SINGLE)


def test_the_collector_accepts_it_with_logs_sent_on() -> None:
    validate(SINGLE, logs_overlay(), PBMON_LOGS_OTLP_ENDPOINT="http://127.0.0.1:3100/otlp")


def test_every_variable_has_a_default() -> None:
    without = [
        found["name"]
        for found in ENVIRONMENT.finditer(SINGLE.read_text(encoding="utf-8"))
        if found["default"] is None
    ]
    assert without == []


def test_a_variable_has_one_default() -> None:
    defaults: dict[str, set[str]] = {}
    for found in ENVIRONMENT.finditer(SINGLE.read_text(encoding="utf-8")):
        defaults.setdefault(found["name"], set()).add(found["default"])
    assert {name: each for name, each in defaults.items() if len(each) > 1} == {}


def test_nobody_outside_this_host_is_served_or_sent_to() -> None:
    config = with_defaults()
    protocols = config["receivers"]["otlp"]["protocols"]
    addresses = [
        *(protocol["endpoint"] for protocol in protocols.values()),
        config["extensions"]["health_check"]["endpoint"],
        config["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"][
            "host"
        ],
        *(each["endpoint"] for each in config["exporters"].values() if "endpoint" in each),
    ]
    outside = [each for each in addresses if not re.match(r"(http://)?127\.0\.0\.1\b", each)]
    assert outside == []
    assert protocols["http"]["endpoint"].endswith(":4318")
    assert protocols["grpc"]["endpoint"].endswith(":4317")


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_each_pipeline_limits_memory_first_and_redacts(signal: str) -> None:
    pipeline = with_defaults()["service"]["pipelines"][signal]
    assert pipeline["processors"][0] == "memory_limiter"
    assert "redaction" in pipeline["processors"]


def test_metrics_never_pass_the_sampler() -> None:
    pipelines = with_defaults()["service"]["pipelines"]
    assert [name for name, each in pipelines.items() if "tail_sampling" in each["processors"]] == [
        "traces"
    ]


def test_what_is_sent_on_waits_on_disk_for_ever() -> None:
    config = with_defaults()
    for name in ("otlp_http/prometheus", "otlp_grpc/tempo"):
        exporter = config["exporters"][name]
        assert exporter["sending_queue"]["storage"] in config["service"]["extensions"]
        # Zero is "never give up"; left out, it is five minutes.
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    assert config["exporters"]["otlp_http/prometheus"]["sending_queue"]["num_consumers"] == 1


def test_a_batch_of_traces_fits_into_a_grpc_message() -> None:
    batch = with_defaults()["exporters"]["otlp_grpc/tempo"]["sending_queue"]["batch"]
    assert batch["sizer"] == "bytes"
    assert batch["max_size"] < 4 * 1024 * 1024


def test_no_record_is_printed() -> None:
    assert with_defaults()["exporters"]["debug"] == {"verbosity": "basic"}


def test_its_log_shows_nothing_of_what_passes(keeps_all: Pipeline) -> None:
    secret = "hidden-in-the-log"
    keeps_all.send(otlp.traces([otlp.span("watched", attributes={"a": secret}, error=secret)]))
    keeps_all.send(otlp.log(secret))

    keeps_all.sink.wait_for_span("watched")
    assert secret not in keeps_all.collector.log()


def test_its_own_metrics_tell_what_an_alert_needs(keeps_all: Pipeline) -> None:
    keeps_all.send(otlp.counter("counted", 1))
    keeps_all.sink.wait_for_metric("counted")

    name = "otlp_http/prometheus"
    assert keeps_all.metric("otelcol_exporter_queue_capacity", exporter=name) > 0
    keeps_all.wait_for_metric("otelcol_exporter_sent_metric_points_total", 1, exporter=name)
    assert keeps_all.metric("otelcol_receiver_refused_metric_points_total") == 0


def test_its_health_can_be_asked(keeps_all: Pipeline) -> None:
    with urllib.request.urlopen(keeps_all.collector.health_url, timeout=5) as answer:
        assert answer.status == 200
