"""`pbmon privacy`, as a user runs it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest

from tests.fresh import environment, python, run


@pytest.fixture
def variables(tmp_path):
    return {
        "PBMON_STATE_DIR": str(tmp_path / "state"), "PBMON_SERVICE_NAME": "shop",
        "PBMON_CONSENT": "opt-out", "OTEL_LOGS_EXPORTER": "none",
    }  # fmt: skip


@pytest.fixture
def pbmon(variables):
    def call(*arguments, given=None):
        return subprocess.run(
            [sys.executable, "-m", "pbmon.cli", "privacy", *arguments], input=given, text=True,
            env=environment(**variables), capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    return call


TRACKING = """
    import pbmon
    pbmon.configure()
    for n in range(5):
        assert pbmon.track("made", {"n": n}, user_id="canary-4711")
    assert pbmon.flush(60)
"""


def test_a_person_is_exported_and_deleted_and_nothing_names_them(pbmon, variables, tmp_path):
    python(TRACKING, **variables)
    out = tmp_path / "person.json"
    out.touch(0o644)
    done = pbmon("export", "-", "--out", str(out), given="canary-4711\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    found = json.loads(out.read_text())
    assert [row["properties"]["n"] for row in found["tables"]["events"]] == [0, 1, 2, 3, 4]

    done = pbmon("delete", "-", given="canary-4711\n")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.startswith("receipt ")
    assert "  events                        5" in lines
    (outstanding,) = [line for line in lines if line.startswith("outstanding")]
    assert outstanding.startswith("outstanding: disk: pages of the database may hold it until")
    assert "canary" not in done.stdout + done.stderr
    assert pbmon("status").stdout.startswith("disk       1 outstanding, for up to ")
    assert "deletions outstanding in disk: 1" in run(
        sys.executable, "-m", "pbmon.cli", "doctor", **variables
    ).stdout  # fmt: skip

    again = pbmon("delete", "canary-4711", "--erase").stdout.splitlines()
    assert again[0] == f"store sqlite:///{tmp_path}/state/store/shop.sqlite3 was vacuumed"
    assert again[1:] == [head, *[line for line in lines if not line.startswith("outstanding")]]
    assert pbmon("status").stdout == "nothing is outstanding of any deletion\n"
    empty = json.loads(pbmon("export", "canary-4711").stdout)
    assert (empty["known"], empty["tables"]["events"]) == (True, [])


def test_what_waits_in_journals_is_found_too(pbmon, variables):
    python(TRACKING.replace("assert pbmon.flush(60)", "import os; os._exit(0)"), **variables)
    done = pbmon("export", "canary-4711")
    assert len(json.loads(done.stdout)["tables"]["events"]) == 5


def test_of_an_unknown_user_it_says_so(pbmon):
    done = pbmon("export", "nobody")
    assert json.loads(done.stdout)["known"] is False
    assert done.stderr == "pbmon privacy: nothing is held of this user\n"
    assert pbmon("delete", "nobody").stdout.startswith("receipt ")


def test_an_id_that_is_none_is_wrong_usage(pbmon):
    done = pbmon("delete", "-", given="")
    assert (done.returncode, done.stderr) == (
        2,
        "pbmon privacy: a user's id has 1 to 255 characters\n",
    )


def test_without_a_store_it_says_why(pbmon, variables):
    variables["PBMON_STORE_URL"] = "postgresql://nobody:secret@127.0.0.1:1/none"
    done = pbmon("delete", "canary-4711")
    assert done.returncode == 1
    assert "nobody listens there" in done.stderr
    assert "secret" not in done.stderr


def test_the_data_map_is_that_of_the_settings(pbmon, variables):
    done = pbmon("map", "--json")
    assert done.returncode == 0, done.stderr
    held = {each["place"]: each for each in json.loads(done.stdout)}
    assert held["table events"]["basis"] == "legitimate interest, art. 6(1)(f), until they object"
    assert "log records" not in held
    variables |= {"PBMON_LOGS": "true", "PBMON_SEGMENT": "typo"}
    done = pbmon("map")
    assert "| log records | " in done.stdout
    assert "PBMON_SEGMENT" in done.stderr  # the map is of what is in force
    assert done.stdout.startswith("| place | what | leads to | purpose | legal basis | ")
