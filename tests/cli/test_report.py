"""`pbmon report weekly`, as a person and as cron run it."""

from __future__ import annotations

import datetime as dt
import os
import pty
import stat
import subprocess
import sys

import pytest

from pbmon import cli
from pbmon.cli import report
from pbmon.store.access import open_writer
from tests.fresh import environment, run
from tests.reports.test_prometheus import answering
from tests.store.money import transaction
from tests.store.test_writer import NOON, portion

WEEK = ("--week", "2026-W48")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Variables of a service with a store, and nothing beside it."""
    variables = {
        "PBMON_STATE_DIR": str(tmp_path / "state"),
        "PBMON_STORE_URL": f"sqlite:///{tmp_path}/store.sqlite3",
        "PBMON_SERVICE_NAME": "shop",
        "PBMON_TIMEZONE": "Europe/Berlin",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    writer = open_writer(variables["PBMON_STORE_URL"], "opt-out", timezone="Europe/Berlin")
    writer.write([portion(transaction(amount=123_456, at=NOON))])
    writer.close()
    return variables


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """A day after the week of NOON is over."""
    at = dt.datetime(2026, 12, 1, 6, tzinfo=dt.timezone.utc)
    monkeypatch.setattr(report, "_now", lambda: at)


def weekly(capfd, *arguments, status=0):
    assert cli.main(["report", "weekly", *arguments]) == status
    return capfd.readouterr()


def test_the_last_week_that_is_over_is_written_as_markdown(place, capfd):
    said = weekly(capfd)
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == "# Weekly review of shop"
    assert lines[2].startswith("2026-W48: 2026-11-23 to 2026-11-29, Europe/Berlin. Made 2026-12-01")
    assert "| Net revenue | 1,234.56 USD | 0.00 USD | new |" in lines
    assert weekly(capfd, *WEEK).out == said.out
    assert "| Net revenue | 0.00 USD | 0.00 USD | ±0 |" in weekly(capfd, "--week", "2026-W47").out


def test_html_goes_into_a_file_of_its_owner_alone(place, capfd, tmp_path):
    file = tmp_path / "out" / "weekly.html"
    file.parent.mkdir()
    file.write_text("older", encoding="utf-8")
    file.chmod(0o644)
    said = weekly(capfd, "--format", "html", "--output", str(file))
    assert said == ("", "")
    assert list(file.parent.iterdir()) == [file]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert "1,234.56 USD" in page


def test_html_may_go_down_a_pipe(place, capfd):
    assert "1,234.56 USD" in weekly(capfd, "--format", "html").out


def test_a_file_that_can_t_be_written_stays_as_it_is(place, capfd, tmp_path):
    said = weekly(capfd, "--output", str(tmp_path / "none" / "x.md"), status=1)
    assert said.err.startswith(f"pbmon: {tmp_path}/none/x.md: No such file or directory")
    said = weekly(capfd, "--output", str(tmp_path), status=1)
    assert said.err == f"pbmon: {tmp_path}: is there, and is no file\n"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    weekly(capfd, "--output", str(pipe), status=1)
    assert pipe.is_fifo()


def test_without_the_extra_it_says_what_to_install(place, capfd, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    file = tmp_path / "weekly.html"
    said = weekly(capfd, "--format", "html", "--output", str(file), status=1)
    assert said.err == (
        "pbmon: a report as HTML needs jinja2: pip install 'pbmon[report]'; Markdown needs "
        "nothing\n"
    )
    assert not file.exists()
    assert "1,234.56 USD" in weekly(capfd).out


def test_a_week_that_is_not_over(place, capfd):
    said = weekly(capfd, "--week", "2026-W49", status=1)
    assert said == ("", "pbmon: 2026-W49 is not over; the newest week that is: 2026-W48\n")


def test_what_is_no_week_is_wrong_usage(place, capfd):
    with pytest.raises(SystemExit) as left:
        cli.main(["report", "weekly", "--week", "last"])
    assert left.value.code == 2
    assert "'last' is no ISO week such as 2026-W47" in capfd.readouterr().err


def test_html_is_nothing_for_a_terminal(place):
    terminal, end = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "pbmon.cli", "report", "weekly", "--format", "html"],
        env=environment(**place), stdout=end, stderr=subprocess.PIPE, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    os.close(end)
    os.close(terminal)
    assert done.returncode == 1
    assert done.stderr == (
        "pbmon: HTML is nothing for a terminal; add --output FILE, or redirect it\n"
    )


def test_as_cron_runs_it(place):
    """With hardly an environment, in a locale without the characters."""
    done = run(
        sys.executable, "-m", "pbmon.cli", "report", "weekly", "--week", "2020-W53",
        **place, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "2020-W53: 2020-12-28 to 2021-01-03, Europe/Berlin" in done.stdout
    assert "±0" in done.stdout


def test_a_store_that_can_t_be_used_is_one_line_with_the_remedy(place, capfd, monkeypatch):
    monkeypatch.setenv("PBMON_STORE_URL", "mysql://app:hunter2@h/x")
    said = weekly(capfd, status=1)
    assert said.out == ""
    assert said.err.startswith("pbmon: the store mysql://REDACTED@h/x names mysql")


def test_a_store_that_nobody_has_made_is_not_made(place, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("PBMON_STORE_URL", f"sqlite:///{tmp_path}/none.sqlite3")
    said = weekly(capfd, status=1)
    assert said.out == ""
    assert "is made by the first event" in said.err
    assert not (tmp_path / "none.sqlite3").exists()


# --- of a release ---


def released(capfd, *arguments, status=0):
    assert cli.main(["report", "release", *arguments]) == status
    return capfd.readouterr()


def note(capfd, release, at):
    assert cli.main(["mark", "deploy", release, "--at", at]) == 0
    capfd.readouterr()


def test_the_newest_release_or_one_that_is_named(place, capfd):
    note(capfd, "1.4", "2026-11-20T10:00")
    note(capfd, "1.5", "2026-11-24T10:00")
    lines = released(capfd).out.splitlines()
    assert lines[0] == "# Release 1.5 of shop"
    assert lines[2].startswith("Deployed 2026-11-24 10:00:00 (Europe/Berlin) after 1.4. The 6 d ")
    older = released(capfd, "1.4").out
    assert older.startswith(
        "# Release 1.4 of shop\n\nDeployed 2026-11-20 10:00:00 (Europe/Berlin)."
    )
    assert "The 4 d since, beside as much time before." in older


def test_a_release_s_page_as_html(place, capfd, tmp_path):
    note(capfd, "1.5", "2026-11-24T10:00")
    file = tmp_path / "release.html"
    assert released(capfd, "--format", "html", "--output", str(file)) == ("", "")
    page = file.read_text(encoding="utf-8")
    assert "<title>Release 1.5 of shop</title>" in page
    assert "None was recorded." in page


def test_a_release_that_nobody_noted(place, capfd):
    said = released(capfd, status=1)
    assert said == (
        "",
        "pbmon: no deploy is noted yet; see `pbmon mark list`, `pbmon mark deploy`\n",
    )
    note(capfd, "1.5", "2026-11-24T10:00")
    assert "no deploy is noted of release 1.4" in released(capfd, "1.4", status=1).err


def test_the_environment_of_the_metrics_is_the_one_of_the_process(place, capfd, monkeypatch):
    note(capfd, "1.5", "2026-11-24T10:00")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    with answering(lambda *_: (200, {"data": {"result": []}})) as (url, asked):
        monkeypatch.setenv("PBMON_PROMETHEUS_URL", url)
        text = released(capfd).out
        weekly(capfd)
    assert "Prometheus knows of no budget in this time." in text
    scope = 'service_name="shop", deployment_environment_name="staging"'
    assert len(asked) > 8
    assert all(scope in parameters["query"] for _, parameters, _ in asked)
