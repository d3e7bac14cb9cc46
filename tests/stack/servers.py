"""The servers of the stack: `with Prometheus() as prometheus: ...`.

Each starts on free loopback ports when entered and is ready when `with` returns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.stack import web
from tests.stack.postgres import Postgres
from tests.stack.process import (
    HOST,
    Server,
    ServerError,
    clean_environment,
    run_tool,
    wait_until,
)
from tests.stack.programs import binary

__all__ = [
    "Alertmanager",
    "Collector",
    "Jaeger",
    "Postgres",
    "Prometheus",
    "Server",
    "ServerError",
    "amtool",
    "collector_validate",
    "promtool",
    "wait_until",
]

Labels = dict[str, str]
Config = str | Path
HOUR_S = 3600.0
# Readiness is read in the server's own log first: on a port lost to another server, that one
# would answer in its place.
COLLECTOR_READY = "Everything is ready. Begin running and processing data."

# The variables by which the files of collector-config/ take their ports and their directory.
COLLECTOR_ENV = {
    "PBMON_COLLECTOR_HTTP_PORT": "{otlp_http}",
    "PBMON_COLLECTOR_GRPC_PORT": "{otlp_grpc}",
    "PBMON_COLLECTOR_HEALTH_PORT": "{health}",
    "PBMON_COLLECTOR_METRICS_PORT": "{metrics}",
    "PBMON_COLLECTOR_STATE_DIR": "{home}/state",
}

PROMETHEUS_CONFIG = """\
global:
  scrape_interval: 15s
otlp:
  keep_identifying_resource_attributes: true
  promote_resource_attributes:
    - service.name
    - service.namespace
    - service.version
    - deployment.environment.name
storage:
  tsdb:
    out_of_order_time_window: 30m
"""

JAEGER_CONFIG = """\
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
    logs: {{level: info}}
extensions:
  jaeger_storage:
    backends:
      main: {{memory: {{max_traces: 100000}}}}
  jaeger_query:
    # Its own tracing would report to port 4317, and hold up its end if nobody listens there.
    enable_tracing: false
    storage: {{traces: main}}
    http: {{endpoint: "{host}:{query}"}}
    grpc: {{endpoint: "{host}:{query_grpc}"}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: "{host}:{otlp_http}"}}
      grpc: {{endpoint: "{host}:{otlp_grpc}"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: main}}
"""


class Collector(Server):
    """The OpenTelemetry Collector on one or several configurations (later ones are merged in).

    config: a Path, or a str: YAML text if it has a line break, else a path.
    env: for the configuration's `${env:NAME}`. A value may contain `{otlp_http}`, `{otlp_grpc}`,
        `{health}`, `{metrics}` (free ports) and `{home}` (a directory that lives as long as this
        object and survives restarts). Without it a configuration finds the same under the names
        that `collector-config/` uses, see COLLECTOR_ENV.
    It is ready when it logs so: the configuration must leave its own log at level info or below.
    """

    name: ClassVar[str] = "collector"
    port_names: ClassVar[tuple[str, ...]] = ("otlp_http", "otlp_grpc", "health", "metrics")

    def __init__(
        self, config: Config | Sequence[Config], env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._configs = [config] if isinstance(config, (str, Path)) else list(config)
        self._env = dict(env or {})

    @property
    def otlp_endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT with http/protobuf."""
        return f"http://{HOST}:{self.ports['otlp_http']}"

    @property
    def otlp_grpc_endpoint(self) -> str:
        return f"http://{HOST}:{self.ports['otlp_grpc']}"

    @property
    def health_url(self) -> str:
        """Answers only if the configuration has the health_check extension on its port."""
        return f"http://{HOST}:{self.ports['health']}"

    def command(self) -> list[str]:
        return [str(binary(self.name)), *_config_flags(self._configs, self.home)]

    def environment(self) -> dict[str, str]:
        return _collector_environment(self._env, self.ports, self.home)

    def is_ready(self) -> bool:
        return COLLECTOR_READY in self.current_log()


def collector_validate(
    config: Config | Sequence[Config], env: Mapping[str, str] | None = None
) -> None:
    """Let the collector check a configuration; ServerError with its words if it refuses it."""
    collector = Collector(config, env)
    try:
        collector.ports = {name: 20_000 + i for i, name in enumerate(Collector.port_names)}
        program, *flags = collector.command()
        run_tool([program, "validate", *flags], collector.environment())
    finally:
        collector.close()


class Prometheus(Server):
    """Prometheus with the OTLP receiver, as `collector-config/prometheus.yml` runs it.

    config: a configuration file; without it one that takes OTLP and scrapes nothing.
    """

    name: ClassVar[str] = "prometheus"
    port_names: ClassVar[tuple[str, ...]] = ("http",)

    def __init__(self, config: Path | None = None) -> None:
        super().__init__()
        self._config = config

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports['http']}"

    @property
    def otlp_endpoint(self) -> str:
        """The base to which an OTLP/HTTP exporter adds `/v1/metrics`."""
        return f"{self.url}/api/v1/otlp"

    def command(self) -> list[str]:
        config = self._config
        if config is None:
            config = self.home / "prometheus.yml"
            config.write_text(PROMETHEUS_CONFIG, encoding="utf-8")
        return [
            str(binary(self.name)),
            f"--config.file={Path(config).resolve()}",
            f"--web.listen-address={HOST}:{self.ports['http']}",
            f"--storage.tsdb.path={self.home / 'data'}",
            "--web.enable-otlp-receiver",
            "--enable-feature=exemplar-storage,created-timestamp-zero-ingestion",
        ]

    def is_ready(self) -> bool:
        if "Server is ready to receive web requests" not in self.current_log():
            return False
        return web.status(f"{self.url}/-/ready") == 200

    def query(self, expression: str, at: float | None = None) -> list[tuple[Labels, float]]:
        """An instant query: labels and value of each series; a scalar has no labels.

        at: Unix seconds, now if left out.
        """
        parameters = {"query": expression}
        if at is not None:
            parameters["time"] = repr(at)
        data = self._get("query", parameters)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        if data["resultType"] != "vector":
            raise ValueError(f"an instant value is needed, this is a {data['resultType']}")
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def query_range(
        self, expression: str, start: float, end: float, step_s: float
    ) -> list[tuple[Labels, list[tuple[float, str]]]]:
        """Labels and points (time, value) of each series; start, end: Unix seconds."""
        parameters = {
            "query": expression, "start": repr(start), "end": repr(end), "step": repr(step_s),
        }  # fmt: skip
        return [
            (series["metric"], [(at, value) for at, value in series["values"]])
            for series in self._get("query_range", parameters)["result"]
        ]

    def exemplars(
        self, expression: str, start: float | None = None, end: float | None = None
    ) -> list[tuple[Labels, Labels, float]]:
        """Labels of the series, labels of the exemplar (`trace_id`, `span_id`) and its value.

        start, end: Unix seconds; the last hour if left out.
        """
        now = time.time()
        parameters = {
            "query": expression,
            "start": repr(now - HOUR_S if start is None else start),
            "end": repr(now + HOUR_S if end is None else end),
        }
        return [
            (series["seriesLabels"], exemplar["labels"], float(exemplar["value"]))
            for series in self._get("query_exemplars", parameters)
            for exemplar in series["exemplars"]
        ]

    def _get(self, path: str, parameters: dict[str, str]) -> Any:
        return web.get_json(f"{self.url}/api/v1/{path}", parameters)["data"]


def promtool(*arguments: str | Path) -> str:
    """Run promtool and return what it printed; ServerError if it found a fault."""
    return run_tool([binary("promtool"), *arguments])


class Alertmanager(Server):
    """Alertmanager on a configuration file, alone: it looks for no others."""

    name: ClassVar[str] = "alertmanager"
    port_names: ClassVar[tuple[str, ...]] = ("http",)

    def __init__(self, config: Path) -> None:
        super().__init__()
        self._config = config

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports['http']}"

    def command(self) -> list[str]:
        return [
            str(binary(self.name)),
            f"--config.file={self._config.resolve()}",
            f"--web.listen-address={HOST}:{self.ports['http']}",
            f"--storage.path={self.home / 'data'}",
            "--cluster.listen-address=",
        ]

    def is_ready(self) -> bool:
        if "Listening on" not in self.current_log():
            return False
        return web.status(f"{self.url}/-/ready") == 200

    def alerts(self) -> list[dict[str, Any]]:
        """What it holds now, in the form of its API."""
        return list(web.get_json(f"{self.url}/api/v2/alerts"))


def amtool(*arguments: str | Path) -> str:
    """Run amtool and return what it printed; ServerError if it found a fault."""
    return run_tool([binary("amtool"), "--no-version-check", *arguments])


class Jaeger(Server):
    """Jaeger v2 with traces in memory: takes OTLP and finds traces by attribute."""

    name: ClassVar[str] = "jaeger"
    port_names: ClassVar[tuple[str, ...]] = ("query", "query_grpc", "otlp_http", "otlp_grpc")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports['query']}"

    @property
    def otlp_endpoint(self) -> str:
        return f"http://{HOST}:{self.ports['otlp_http']}"

    @property
    def otlp_grpc_endpoint(self) -> str:
        return f"http://{HOST}:{self.ports['otlp_grpc']}"

    def command(self) -> list[str]:
        config = self.home / "jaeger.yaml"
        config.write_text(JAEGER_CONFIG.format(host=HOST, **self.ports), encoding="utf-8")
        return [str(binary(self.name)), f"--config={config}"]

    def is_ready(self) -> bool:
        if COLLECTOR_READY not in self.current_log():  # Jaeger v2 is a collector underneath
            return False
        return web.status(f"{self.url}/api/services") == 200

    def services(self) -> list[str]:
        return sorted(web.get_json(f"{self.url}/api/services")["data"] or [])

    def find(
        self, service: str, tags: Mapping[str, object] | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """The traces of `service` that have a span with all `tags`, in Jaeger's JSON form.

        tags: span attributes; True is searched as `true`, and `error: True` is an error status.
        """
        now = time.time()
        parameters = {
            "service": service,
            "limit": str(limit),
            "start": str(int((now - HOUR_S) * 1e6)),
            "end": str(int((now + HOUR_S) * 1e6)),
        }
        if tags:
            texts = {key: _tag_text(value) for key, value in tags.items()}
            parameters["tags"] = json.dumps(texts)
        return list(web.get_json(f"{self.url}/api/traces", parameters)["data"] or [])


def _tag_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _config_flags(configs: Sequence[Config], home: Path) -> list[str]:
    flags = []
    for number, config in enumerate(configs):
        if isinstance(config, str) and "\n" in config:
            path = home / f"config-{number}.yaml"
            path.write_text(config, encoding="utf-8")
        else:
            path = Path(config).resolve()
        flags.append(f"--config={path}")
    return flags


def _collector_environment(
    env: Mapping[str, str], ports: Mapping[str, int], home: Path
) -> dict[str, str]:
    environment = clean_environment()
    environment.update({**COLLECTOR_ENV, **env})
    known = {**{name: str(port) for name, port in ports.items()}, "home": str(home)}
    for name, value in environment.items():
        for word, text in known.items():
            value = value.replace("{" + word + "}", text)  # noqa: PLW2901
        environment[name] = value
    return environment
