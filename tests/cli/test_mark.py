"""`pbmon mark`, as a pipeline and a person run it."""

from __future__ import annotations

import datetime as dt

import pytest

from pbmon import cli
from pbmon.store.access import open_engine, open_runs, upgrade
from pbmon.store.marks import Mark, newest


@pytest.fixture
def url(tmp_path, monkeypatch):
    made = f"sqlite:///{tmp_path}/store.sqlite3"
    for name, value in (
        ("STATE_DIR", str(tmp_path / "state")), ("STORE_URL", made), ("SERVICE_NAME", "shop"),
        ("TIMEZONE", "Europe/Berlin"),
    ):  # fmt: skip
        monkeypatch.setenv(f"PBMON_{name}", value)
    engine = open_engine(made)
    upgrade(engine)
    engine.dispose()
    return made


def mark(capfd, *arguments, status=0):
    assert cli.main(["mark", *arguments]) == status
    return capfd.readouterr()


def noted(url):
    runs = open_runs(url)
    found = runs.read(lambda connection: newest(connection, 9))
    runs.close()
    return found


def micros(*when):
    return int(dt.datetime(*when, tzinfo=dt.timezone.utc).timestamp() * 1e6)


def test_a_deploy_of_a_pipeline_is_noted_once(url, capfd):
    at = ("--at", "2026-11-24T12:30")
    assert mark(capfd, "deploy", "1.5", *at, "--note", "new  checkout").out == "deploy 1.5: noted\n"
    assert mark(capfd, "deploy", "1.5").out == "deploy 1.5: was noted before\n"
    # In the zone of the settings.
    assert noted(url) == [Mark("deploy", "1.5", micros(2026, 11, 24, 11, 30), "new checkout")]


def test_the_release_of_the_settings_is_meant(url, capfd, monkeypatch):
    said = mark(capfd, "deploy", status=1)
    assert said.err == "pbmon mark: name the RELEASE, or set the setting release\n"
    monkeypatch.setenv("PBMON_RELEASE", "7f3c2a1")
    assert mark(capfd, "deploy").out == "deploy 7f3c2a1: noted\n"
    (found,) = noted(url)
    now = dt.datetime.now(dt.timezone.utc).timestamp()
    assert found.at / 1e6 == pytest.approx(now, abs=60)


def test_changes_and_deploys_are_listed_newest_first_in_the_zone_of_the_settings(url, capfd):
    assert mark(capfd, "list").out == "no mark yet\n"
    mark(capfd, "deploy", "1.4", "--at", "2026-07-01T10:00Z")
    mark(capfd, "change", "prices\n +10 %", "--at", "2026-11-24T12:30:07+00:00", "--note", "why")
    assert mark(capfd, "list").out.splitlines() == [
        "at                         kind    name          note",
        "2026-11-24T13:30:07+01:00  change  prices +10 %  why",
        "2026-07-01T12:00:00+02:00  deploy  1.4",
    ]
    assert len(mark(capfd, "list", "--limit", "1").out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deploy", "x" * 101), "is not 1 to 100 printable characters"),
        (("deploy", "1\x1b[31m"), "is not 1 to 100 printable characters"),
        (("change", " "), "the text is to have 1 to 200 characters, not 0"),
        (("change", "x" * 201), "the text is to have 1 to 200 characters, not 201"),
        (("change", "x", "--note", "y" * 501), "the note is to have 1 to 500 characters, not 501"),
        (("change", "x", "--at", "2999-01-01"), "2999-01-01T00:00:00+01:00 is to come"),
    ],
)
def test_what_is_no_mark_is_one_line(url, capfd, arguments, said):
    found = mark(capfd, *arguments, status=1)
    assert found.out == ""
    assert found.err.startswith("pbmon mark: ")
    assert said in found.err
    assert found.err.count("\n") == 1 and "\x1b" not in found.err
    assert noted(url) == []


def test_a_time_that_is_none_is_wrong_usage(url, capfd):
    with pytest.raises(SystemExit) as left:
        cli.main(["mark", "deploy", "1", "--at", "noon"])
    assert left.value.code == 2
    assert "'noon' is no time such as 2026-11-24T12:30" in capfd.readouterr().err


def test_a_limit_that_is_none_is_wrong_usage(url, capfd):
    with pytest.raises(SystemExit) as left:
        cli.main(["mark", "list", "--limit", "-1"])
    assert left.value.code == 2
    assert "'-1' is not a whole number, 1 to" in capfd.readouterr().err


def test_a_store_that_nobody_has_made_is_not_made(url, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("PBMON_STORE_URL", f"sqlite:///{tmp_path}/none.sqlite3")
    said = mark(capfd, "deploy", "1.5", status=1)
    assert "is made by the first event" in said.err
    assert not (tmp_path / "none.sqlite3").exists()
