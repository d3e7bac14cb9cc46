"""`make demo` itself: real processes, real HTTP, and figures that match exactly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.pocketbook import demo, rates
from examples.pocketbook.demo import INTERRUPTED, NOT_STARTED
from examples.pocketbook.receiver import Receiver
from examples.pocketbook.server import ROOT, Server, StartError, environment
from examples.pocketbook.summary import summarise
from examples.pocketbook.traffic import MIX
from tests import state
from tests.stack.process import children, wait_until

PATIENCE_S = 180.0


@pytest.fixture
def collector():
    """What stands for the user's own collector."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def start(tmp_path, collector):
    """Starts the demo as a person does, in an empty directory."""
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    started = []

    def start(*arguments, **environ):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PBMON_"))}
        kept.pop("DATABASE_URL", None)
        added = {
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(scratch),
            "XDG_STATE_HOME": state.fresh(),
            "COLUMNS": "120",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            # Of the user's shell, and no setting of the demo: must not change the figures.
            "OTEL_TRACES_SAMPLER": "always_off",
            "PBMON_SLOW_REQUEST_S": "0.001",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.pocketbook.demo", *arguments],
            cwd=here,
            env=kept | added | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        process.here, process.scratch = here, scratch
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(30)
        process.stdout.close()


def left_behind(process):
    return sorted(path.name for path in [*process.here.iterdir(), *process.scratch.iterdir()])


def test_a_short_run_shows_what_was_sent_and_leaves_only_the_report(start, collector):
    process = start("--seconds", "2")
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, printed
    sent, shown = re.search(r"sent ([\d,]+) requests, telemetry shows ([\d,]+)", printed).groups()
    assert sent == shown
    # The collector has got the same telemetry, so the printed figures can be had from there.
    summary = summarise(collector.telemetry)
    assert summary.requests == summary.counted == int(sent.replace(",", "")) > len(MIX)
    assert f"{summary.requests:,} requests" in printed
    assert f"{summary.server_errors:,} failed" in printed
    assert summary.server_errors >= 2
    assert summary.slow_requests >= 1
    assert {query.system for query in summary.slow_queries} == {"sqlite"}
    # A machine under load makes others slow, too.
    assert len([query for query in summary.slow_queries if "pg_sleep" in query.text]) == 4
    states = {name: {x.name: x.kept for x in limits} for name, limits in summary.budgets}
    assert states.keys() == {"/api/transactions", "/api/users"}
    assert not states["/api/transactions"]["max"]
    assert not states["/api/users"]["max"]
    (currency,) = summary.revenue
    assert f"all in {currency}" in printed
    sums = summary.revenue[currency]
    assert all(f"{sum_:,}" in printed for sum_ in (sums.gross, sums.returned))
    kinds = {kind for kind, _ in summary.transactions}
    assert kinds == {"charge", "refund", "chargeback", "adjustment"}
    assert min(summary.exposures, summary.answers) >= 1
    assert set(summary.features) >= {"data_export", "analytics_dashboard", "live_balances"}
    assert {error.kind for error in summary.errors} == {"request", "query"}
    assert left_behind(process) == ["demo-report.html"]
    assert f"{sent}</dd>" in (process.here / "demo-report.html").read_text(encoding="utf-8")


def test_a_database_of_another_kind_is_told_in_one_line(start):
    process = start(DATABASE_URL="mysql://nobody")
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == NOT_STARTED
    assert printed.endswith(
        "The demo failed: the database can't be used: "
        "DATABASE_URL must start with postgresql:// or sqlite:///\n"
    )
    assert left_behind(process) == []


def test_an_app_that_does_not_start_is_told_with_its_log(tmp_path):
    server = Server(environment("http://127.0.0.1:1", "mysql://nobody", tmp_path))
    with pytest.raises(StartError, match=r"(?s)the app did not start.*DATABASE_URL must start"):
        server.__enter__()
    assert server._process.returncode not in (0, None)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the app by Linux's /proc")
def test_ctrl_c_stops_the_app_and_leaves_nothing(start, collector):
    process = start("--seconds", "600")
    wait_until(lambda: bool(collector.telemetry.spans), "the first spans", PATIENCE_S)
    (app,) = children(process.pid, 1)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == INTERRUPTED
    assert "Stopped." in printed
    assert "Traceback" not in printed
    assert not Path(f"/proc/{app}").exists()
    assert left_behind(process) == []


def test_a_server_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    server = Server({"PATH": str(tmp_path)})
    with pytest.raises(StartError, match="opentelemetry-instrument is not installed"):
        server.__enter__()


def test_the_apps_variables_are_the_demos():
    given = {
        "OTEL_SDK_DISABLED": "true",
        "PBMON_HOOKS": "sqlite3=off",
        "OTEL_RESOURCE_ATTRIBUTES": "team=books",
        "HTTP_PROXY": "http://proxy",
        "NO_PROXY": "intranet",
    }
    made = environment("http://127.0.0.1:1", "sqlite:///x", Path("state"), given)
    assert "OTEL_SDK_DISABLED" not in made
    assert "PBMON_HOOKS" not in made
    assert made["OTEL_RESOURCE_ATTRIBUTES"] == "team=books"
    assert made["NO_PROXY"] == made["no_proxy"] == "intranet,127.0.0.1,localhost"


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "1e9", "nan"])
def test_a_wrong_length_is_refused(seconds, capsys):
    with pytest.raises(SystemExit) as left:
        demo.main(["--seconds", seconds])
    assert left.value.code == 2
    assert "--seconds" in capsys.readouterr().err


def test_the_settings_file_has_no_problem():
    from pbmon import settings
    from pbmon.budgets import Budget

    path = ROOT / "examples" / "pocketbook" / "pbmon.toml"
    resolved, problems = settings.resolve(environ={"PBMON_CONFIG": str(path)})
    assert resolved.base_currency == rates.BASE
    assert problems == []
    assert resolved.budgets.all == (
        Budget("/api/transactions", max_s=0.5, p95_s=0.3, p99_s=0.4),
        Budget("/api/users", max_s=0.2, p95_s=0.15, p99_s=0.18),
    )
