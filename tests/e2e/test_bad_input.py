"""What a person can get wrong: one line with the remedy, and the app answers as without pbmon."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.e2e.launch import launched
from tests.stack.process import HOST, unused_port

APP = "tests.e2e.plain_app:app"
QUIET = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}

CASES = {
    "unknown setting": (
        {"PBMON_SLOW_REQEST_S": "2"},
        r"PBMON_SLOW_REQEST_S.*no such setting.*did you mean PBMON_SLOW_REQUEST_S",
    ),
    "malformed budget": (
        {"PBMON_BUDGETS": "/hello/{name} max=500ms; /pay max=fast"},
        r"budgets \(environment PBMON_BUDGETS\).*/pay.*'fast' is no duration.*'300ms'",
    ),
    "malformed number": (
        {"PBMON_SLOW_QUERY_S": "soon"},
        r"slow_query_s \(environment PBMON_SLOW_QUERY_S\).*'soon' is no duration",
    ),
    "missing file": ({"PBMON_CONFIG": "no/such.toml"}, r"PBMON_CONFIG.*no/such\.toml.*not exist"),
    "no table of users": (
        {"PBMON_USERS": "SELECT 1"},
        r"users \(environment PBMON_USERS\).*\[users\]",
    ),
    "unknown exporter": ({"OTEL_TRACES_EXPORTER": "zipkin9"}, r"'zipkin9'.*not installed"),
}


def answers(url: str) -> None:
    assert httpx.get(f"{url}/hello/ann").json() == {"hello": "ann"}
    assert httpx.get(f"{url}/nothing").status_code == 404


@pytest.mark.parametrize("case", CASES)
def test_one_line_with_the_remedy(case, tmp_path):
    environment, pattern = CASES[case]
    with launched(APP, tmp_path / "log", QUIET | environment) as app:
        answers(app.url)
        assert app.stop() in (0, -15)
    lines = [line for line in app.log.splitlines() if re.search(pattern, line)]
    assert len(lines) == 1, app.log
    assert "Traceback" not in app.log


def test_a_collector_that_is_not_there(tmp_path):
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://ann:secret@{HOST}:{unused_port()}",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with launched(APP, tmp_path / "log", environment) as app:
        for _ in range(20):
            answers(app.url)
        app.stop()
    lines = [line for line in app.log.splitlines() if "can't be delivered" in line]
    assert {line.split()[1] for line in lines} <= {"traces", "metrics"}
    assert 1 <= len(lines) <= 2, app.log
    assert all("OTEL_EXPORTER_OTLP_ENDPOINT" in line for line in lines)
    assert "secret" not in app.log
    assert "Traceback" not in app.log


@pytest.mark.parametrize(
    ("amount", "currency", "reason"),
    [
        ("5.00", "ZZZ", "unknown_currency"),
        ("-5.00", "EUR", "negative_amount"),
        ("5.001", "EUR", "too_precise"),
        ("much", "EUR", "invalid_amount"),
    ],
)
def test_a_wrong_amount_is_refused_once_in_the_log(tmp_path, amount, currency, reason):
    with launched(APP, tmp_path / "log", QUIET) as app:
        for _ in range(3):
            query = {"amount": amount, "currency": currency}
            answer = httpx.post(f"{app.url}/pay", params=query)
            assert answer.json() == {"accepted": False, "reason": reason}
        app.stop()
    lines = [line for line in app.log.splitlines() if "track_revenue refused" in line]
    assert len(lines) == 1, app.log
    assert re.search(r"tests/e2e/plain_app\.py:\d+", lines[0])


def test_the_launcher_and_plain_uvicorn_answer_alike(tmp_path):
    answered = []
    for launcher in (True, False):
        with launched(APP, tmp_path / f"{launcher}", QUIET, launcher=launcher) as app:
            answer = httpx.get(f"{app.url}/hello/ann")
            kept = {k: v for k, v in answer.headers.items() if k != "date"}
            answered.append((answer.status_code, answer.content, kept))
    assert answered[0] == answered[1]
