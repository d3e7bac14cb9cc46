"""alertmanager.yml on the real Alertmanager: who is told of what."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.collector_config import otlp
from tests.collector_config.paths import CONFIG, load
from tests.stack import web
from tests.stack.plugin import missing, started
from tests.stack.programs import MissingProgram
from tests.stack.servers import Alertmanager, Prometheus, amtool, wait_until

FILE = CONFIG / "alertmanager.yml"
RULES = CONFIG / "rules"
RECEIVERS = {"page": "pager", "ticket": "ticket", "none": "watchdog"}
ALERTS = [
    (rule["alert"], rule["labels"])
    for path in sorted(RULES.glob("*.yml"))
    for group in load(path)["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def run(*arguments: str | Path) -> str:
    try:
        return amtool(*arguments)
    except MissingProgram as absent:
        missing(absent.name, absent.reason)


def receivers(**labels: str) -> list[str]:
    words = [f"{name}={value}" for name, value in labels.items()]
    return run("config", "routes", "test", f"--config.file={FILE}", *words).split()


def test_amtool_accepts_it() -> None:
    assert "SUCCESS" in run("check-config", FILE)


@pytest.mark.parametrize(
    ("alert", "labels"), ALERTS, ids=[f"{name}-{labels['severity']}-{number}"
                                      for number, (name, labels) in enumerate(ALERTS)],
)  # fmt: skip
def test_each_alert_reaches_one_receiver(alert: str, labels: dict[str, str]) -> None:
    found = receivers(alertname=alert, service_name="shop", **labels)
    assert found == [RECEIVERS[labels["severity"]]]


def test_what_the_rules_do_not_know_is_not_lost() -> None:
    assert receivers(alertname="Mine") == ["ticket"]
    assert receivers(alertname="Mine", severity="page") == ["pager"]
    assert receivers(alertname="Mine", severity="none") == ["nobody"]


# --- all the way ---


class Sink(ThreadingHTTPServer):
    """Remembers what is posted to each path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def got(self, path: str) -> list[dict[str, Any]]:
        return [body for where, body in self.posts.copy() if where == path]


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, json.loads(body)))
        answer = b'{"status": "success", "dedup_key": "1", "message": ""}'
        self.send_response(202)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def alertmanager(sink: Sink, tmp_path: Path) -> Iterator[Alertmanager]:
    """As shipped, but that it waits for no others of a group, with its secrets in place."""
    for name, text in (
        ("alert_pagerduty_key", "a key"),
        ("alert_slack_url", f"{sink.url}/ticket"),
        ("alert_watchdog_url", f"{sink.url}/watchdog"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    text = FILE.read_text(encoding="utf-8").replace("/run/secrets", str(tmp_path))
    text = re.sub(r"group_wait: \w+", "group_wait: 1s", text)
    path = tmp_path / "alertmanager.yml"
    path.write_text(f"global: {{pagerduty_url: {sink.url}/page}}\n{text}", encoding="utf-8")
    with started(Alertmanager(path)) as running:
        yield running


class Insistent(Prometheus):
    """What fires before Alertmanager was found is sent again at once, not after a minute."""

    def command(self) -> list[str]:
        return [*super().command(), "--rules.alert.resend-delay=1s"]


@pytest.fixture
def prometheus(alertmanager: Alertmanager, tmp_path: Path) -> Iterator[Prometheus]:
    """As shipped, but that it looks every second; rules of an hour stay as they are."""
    (tmp_path / "rules").mkdir()
    for path in RULES.glob("*.yml"):
        text = path.read_text(encoding="utf-8").replace("interval: 1m", "interval: 1s")
        (tmp_path / "rules" / path.name).write_text(text, encoding="utf-8")
    (tmp_path / "alertmanagers").mkdir()
    target = alertmanager.url.removeprefix("http://")
    (tmp_path / "alertmanagers" / "own.yml").write_text(f"- targets: ['{target}']\n")
    path = tmp_path / "prometheus.yml"
    path.write_bytes((CONFIG / path.name).read_bytes())
    with started(Insistent(path)) as running:
        yield running


def errors(count: int, kind: str) -> Any:
    return otlp.counter("pbmon.errors", count, attributes={"error.type": kind})


@pytest.mark.server
def test_from_prometheus_to_whoever_is_told(
    prometheus: Prometheus, alertmanager: Alertmanager, sink: Sink
) -> None:
    """Eleven errors page, ten don't; the watchdog is heard from the start."""
    otlp.post(prometheus.otlp_endpoint, errors(11, "ValueError"))
    otlp.post(prometheus.otlp_endpoint, errors(10, "KeyError"))
    wait_until(lambda: bool(sink.got("/page")), "a page", 30)
    wait_until(lambda: bool(sink.got("/watchdog")), "the watchdog", 30)

    [page] = sink.got("/page")
    assert page["routing_key"] == "a key"
    assert page["event_action"] == "trigger"
    assert page["payload"]["summary"] == "ValueError in shop"
    text = page["payload"]["custom_details"]["firing"]
    assert "11 errors of type ValueError within 5 minutes." in text
    assert "docs/runbooks/ErrorBurst.md" in text
    [watchdog] = sink.got("/watchdog")
    assert [each["labels"]["alertname"] for each in watchdog["alerts"]] == ["Watchdog"]

    # Every rule was evaluated by then, or waits for its time, and none failed.
    groups = web.get_json(f"{prometheus.url}/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert sum(len(group["rules"]) for group in groups) <= 51


def push(alertmanager: Alertmanager, *alerts: dict[str, str]) -> None:
    url = f"{alertmanager.url}/api/v2/alerts"
    told = {"summary": "s", "description": "d", "runbook_url": "r"}
    web.post_json(url, [{"labels": labels, "annotations": told} for labels in alerts])


@pytest.mark.server
def test_what_is_inhibited(alertmanager: Alertmanager) -> None:
    shop = {"service_name": "shop", "deployment_environment_name": "production"}
    pay = {**shop, "http_route": "/pay", "http_request_method": "POST"}
    page, ticket = {"severity": "page"}, {"severity": "ticket"}
    push(
        alertmanager,
        {"alertname": "BudgetBurn", "pbmon_budget_limit": "p95", **pay, **page},
        {"alertname": "BudgetBurn", "pbmon_budget_limit": "p99", **pay, **ticket},
        {"alertname": "BudgetExhausted", "pbmon_budget_limit": "p95", **pay, **ticket},
        {"alertname": "BudgetBurn", **pay, "http_route": "/other", **ticket},
        {"alertname": "SlowQueries", **shop, **ticket},
        {"alertname": "ServiceSilent", **shop, "service_name": "gone", **page},
        {"alertname": "ErrorBurst", **shop, "service_name": "gone", **page},
        {"alertname": "RevenueDrop", "instance": "store", **page},
        {"alertname": "Watchdog", "severity": "none"},
    )
    wait_until(lambda: len(alertmanager.alerts()) == 9, "all of them")
    assert sorted(quiet(alertmanager)) == ["BudgetBurn", "BudgetExhausted", "ErrorBurst"]
    push(alertmanager, {"alertname": "CollectorDown", **page})
    wait_until(lambda: "ServiceSilent" in quiet(alertmanager), "the silence to be explained")


def quiet(alertmanager: Alertmanager) -> list[str]:
    """The names of what nobody is told since something else says more."""
    return [
        each["labels"]["alertname"]
        for each in alertmanager.alerts()
        if each["status"]["inhibitedBy"]
    ]
