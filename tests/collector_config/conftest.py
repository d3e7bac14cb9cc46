"""Collectors that run collector-config/single.yaml before a sink that remembers."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.collector_config import otlp
from tests.collector_config.paths import SINGLE, logs_overlay
from tests.collector_config.sink import Sink
from tests.stack.plugin import started
from tests.stack.servers import Collector, wait_until

# As short as it may be: the sampler looks once a second.
DECISION_WAIT_S = 1


@dataclass
class Pipeline:
    """A running collector and the backend behind it."""

    collector: Collector
    sink: Sink

    def send(self, request: Any) -> None:
        otlp.post(self.collector.otlp_endpoint, request)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric of the collector's own over the series with these labels."""
        url = f"http://127.0.0.1:{self.collector.ports['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=otlp.TIMEOUT_S) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((f"{name}{{", f"{name} ")) and all(each in line for each in wanted)
        )

    def wait_for_metric(self, name: str, at_least: float, **labels: str) -> None:
        what = f"{name}{labels} to reach {at_least:g}"
        wait_until(lambda: self.metric(name, **labels) >= at_least, what, timeout_s=20)

    def decided(self, decision: str) -> float:
        name = "otelcol_processor_tail_sampling_global_count_traces_sampled_total"
        return self.metric(name, decision=decision)


@contextmanager
def pipeline(sink: Sink, *more: str, **env: str) -> Iterator[Pipeline]:
    """single.yaml in front of `sink`, which the caller starts when he wants it.

    more: YAML that is merged in, to make a limit small enough for a test.
    """
    settings = {
        **sink.environment,
        "PBMON_TRACE_DECISION_WAIT": f"{DECISION_WAIT_S}s",
        "PBMON_LOGS_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.http_port}",
        **env,
    }
    with started(Collector([SINGLE, logs_overlay(), *more], settings)) as collector:
        yield Pipeline(collector, sink)


@pytest.fixture(scope="session")
def keeps_all() -> Iterator[Pipeline]:
    """A share of 100 %: what doesn't arrive was dropped for a reason."""
    with Sink() as sink, pipeline(sink, PBMON_TRACE_SAMPLE_PERCENT="100") as running:
        yield running


@pytest.fixture(scope="session")
def keeps_flagged() -> Iterator[Pipeline]:
    """A share of 0 %: what arrives was kept for a reason."""
    with Sink() as sink, pipeline(sink, PBMON_TRACE_SAMPLE_PERCENT="0") as running:
        yield running


@pytest.fixture
def pipelines() -> Iterator[Callable[..., Pipeline]]:
    """`pipelines(sink, *more, **env)` for a test that needs a collector of its own."""
    with ExitStack() as running:
        yield lambda *how, **env: running.enter_context(pipeline(*how, **env))
