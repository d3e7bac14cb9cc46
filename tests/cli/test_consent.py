"""`pbmon consent` and `pbmon pseudonyms`, as an operator runs them."""

from __future__ import annotations

import re
import sys

import pytest
from sqlalchemy import select

from pbmon import cli
from pbmon.cli import doctor
from pbmon.spool import entries
from pbmon.store import tables
from pbmon.store.access import open_engine, open_writer
from tests.fresh import run
from tests.store.test_writer import event, portion

PEPPER = "0123456789abcdef" * 4


@pytest.fixture
def pbmon(tmp_path, monkeypatch, capsys):
    """In this process: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PBMON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PBMON_SERVICE_NAME", "shop")

    def call(*arguments, **variables):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            code = cli.main(arguments)
        return code, *capsys.readouterr()

    call("store", "upgrade")
    return call


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/state/store/shop.sqlite3"


def rows(store, table):
    with open_engine(store).connect() as connection:
        return connection.execute(select(table)).all()


def untimed(text):
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "THEN", text)


def test_decisions_are_noted_and_told(pbmon):
    assert pbmon("consent", "status", "7") == (
        0,
        (
            "analytics  not asked; basis opt-in: not kept\n"
            "sharing    not asked; basis opt-in: not kept\n"
        ),
        "",
    )
    code, output, _ = pbmon("consent", "grant", "7", "analytics", "--version", "2026-10")
    assert (code, untimed(output)) == (
        0,
        (
            "analytics  granted (version 2026-10); basis opt-in: kept\n"
            "sharing    not asked; basis opt-in: not kept\n"
            "  THEN  analytics granted, version 2026-10\n"
        ),
    )
    asked = {"PBMON_CONSENT_VERSION": "2026-11"}
    code, output, _ = pbmon("consent", "status", "7", **asked)
    assert output.startswith(
        "analytics  granted (version 2026-10); basis opt-in, version 2026-11 required: not kept\n"
    )
    pbmon("consent", "grant", "7", **asked)
    code, output, _ = pbmon("consent", "withdraw", "7", "sharing", **asked)
    assert (code, untimed(output)) == (
        0,
        (
            "analytics  granted (version 2026-11); basis opt-in, version 2026-11 required: kept\n"
            "sharing    withdrawn; basis opt-in, version 2026-11 required: not kept\n"
            "  THEN  analytics granted, version 2026-10\n"
            "  THEN  analytics granted, version 2026-11\n"
            "  THEN  sharing granted, version 2026-11\n"
            "  THEN  sharing withdrawn\n"
        ),
    )


def test_of_somebody_who_was_deleted_nothing_is_noted(pbmon, store):
    pbmon("consent", "grant", "7")
    with open_engine(store).begin() as connection:
        connection.execute(tables.subjects.update().values(key=None, deleted_at=1))
    assert pbmon("consent", "grant", "7")[0::2] == (
        1, "pbmon: this person was deleted; nothing is noted of them\n",
    )  # fmt: skip
    code, output, _ = pbmon("consent", "status", "7")
    assert output.startswith("this person was deleted; nothing is kept of them\nanalytics  not ask")
    assert len(rows(store, tables.consents)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("grant", "7", "fun"), "purpose 'fun' is not one of analytics, sharing"),
        (("grant", "7", "--version", "x" * 51), "VERSION must have 1 to 50 printable characters"),
        (("status", ""), "USER_ID must have 1 to 255 characters"),
    ],
)
def test_what_is_wrong_is_said(pbmon, arguments, said):
    assert pbmon("consent", *arguments) == (2, "", f"pbmon: {said}\n")


def test_pseudonyms_are_changed(pbmon, store):
    writer = open_writer(store, "opt-out")
    writer.write([portion(*(event(user=str(n)) for n in range(3)))])
    writer.close()
    before = {bytes(row.subject) for row in rows(store, tables.events)}
    assert pbmon("pseudonyms", "rotate", "--user", "0")[1] == (
        "the person has new pseudonyms, in 3 rows\n"
    )
    assert len(before & {bytes(row.subject) for row in rows(store, tables.events)}) == 2
    assert pbmon("pseudonyms", "rotate", "--all")[1] == (
        "3 people have new pseudonyms, in 9 rows\n"
    )
    assert before.isdisjoint({bytes(row.subject) for row in rows(store, tables.events)})
    assert pbmon("pseudonyms", "rotate", "--destination", "webhook")[1] == (
        "webhook: other pseudonyms from now on, 0 waiting events\n"
    )
    assert pbmon("pseudonyms", "rotate", "--user", "4711") == (
        1, "", "pbmon: nothing is known of this person\n",
    )  # fmt: skip


def test_a_store_is_brought_under_a_pepper_from_a_file(pbmon, store, tmp_path):
    pbmon("consent", "grant", "7")
    (tmp_path / "pepper").write_text(f"{PEPPER}\n")
    outside = {"PBMON_PEPPER": f"file:{tmp_path}/pepper"}
    code, _, errors = pbmon("consent", "status", "7", **outside)
    assert code == 1
    assert errors == (
        f"pbmon: the store {store} knows people by its own pepper alone; run `pbmon pseudonyms "
        "pepper`, which brings it under the one of the setting `pepper`, or unset that\n"
    )
    assert pbmon("pseudonyms", "pepper", **outside)[1] == (
        "1 people are known by the pepper from outside now\n"
    )
    assert "analytics  granted" in pbmon("consent", "status", "7", **outside)[1]
    assert "set `pepper` (PBMON_PEPPER)" in pbmon("consent", "status", "7")[2]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        (
            "env:NOT_SET",
            "can't be used without its pepper: pepper is env:NOT_SET, which is not set",
        ),
        ("file:none", "can't be used without its pepper: pepper: none can't be read (FileNotFound"),
        ("env:SHORT", "can't be used: what the setting pepper names has less than 32 characters"),
    ],
)
def test_a_pepper_that_can_not_be_had_is_said_and_never_shown(pbmon, where, why):
    code, output, errors = pbmon("consent", "status", "7", PBMON_PEPPER=where, SHORT="hunter2")
    assert (code, output) == (1, "")
    assert why in errors
    assert "hunter2" not in errors


def test_the_command_is_there():
    done = run(sys.executable, "-m", "pbmon.cli", "consent", "--help")
    assert "say what a person has agreed to" in done.stdout


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        ([], "    decisions: 0 people agree, 0 refuse\n    so no figure has anybody; tell pbmon."),
        ([True] * 12 + [False], "    decisions: 12 people agree, fewer than 10 refuse\n"),
    ],
)
def test_doctor_says_how_many_have_said_what(pbmon, store, capsys, decisions, said):
    payloads = [
        entries.encode(entries.Consent(n + 1, str(n), "analytics", granted))
        for n, granted in enumerate(decisions)
    ]
    writer = open_writer(store, "opt-in")
    writer.write([portion(*payloads)])
    writer.close()
    doctor._print_decisions(store, "opt-in")
    output = capsys.readouterr().out
    assert output.startswith(said)
    assert ("no figure" in output) == (decisions == [])
