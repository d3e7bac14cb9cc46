"""`pbmon store` and `pbmon worker`, as a user runs them."""

from __future__ import annotations

import sys
import time

import pytest

from pbmon.store import schema
from pbmon.store.access import open_engine, open_writer
from pbmon.store.schema import DAY
from tests.fresh import python, run
from tests.stack.process import unused_port
from tests.store.conftest import new_database
from tests.store.test_feedback import answer
from tests.store.test_writer import NOON, event, portion

VERSION = schema.VERSIONS[-1]
AWAY = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"


@pytest.fixture
def pbmon(tmp_path):
    def call(*arguments, **variables):
        return run(
            sys.executable, "-m", "pbmon.cli", *arguments,
            PBMON_STATE_DIR=str(tmp_path / "state"), PBMON_SERVICE_NAME="shop",
            PBMON_CONSENT="opt-out", **variables,
        )  # fmt: skip

    return call


def test_a_store_in_sqlite_from_its_making_to_its_figures(pbmon, tmp_path):
    store = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    missing = pbmon("store", "status")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == (
        f"pbmon: the store {store} has no tables of pbmon yet; run `pbmon store upgrade`\n"
    )
    assert pbmon("store", "upgrade").stdout == f"store {store} was made (version {VERSION})\n"
    assert pbmon("store", "upgrade").stdout == f"store {store} is up to date (version {VERSION})\n"
    assert pbmon("store", "status").stdout == f"store {store} is up to date: 0 events stored\n"
    python(
        """
        import pbmon
        from pbmon import wiring
        wiring.EXIT_TIMEOUT_S = 60.0
        pbmon.configure()
        for user in range(12):
            pbmon.track("bought", user_id=user)
            pbmon.track_feature("export", "viewed")
        pbmon.track("looked", user_id=1)
        """,
        PBMON_STATE_DIR=str(tmp_path / "state"), PBMON_SERVICE_NAME="shop",
        PBMON_CONSENT="opt-out", OTEL_LOGS_EXPORTER="none",
    )  # fmt: skip
    assert pbmon("store", "status").stdout == f"store {store} is up to date: 25 events stored\n"
    listed = [line.split() for line in pbmon("store", "events").stdout.splitlines()]
    assert listed == [
        ["bought", "12", "12", "people"],
        ["feature_viewed", "12", "few", "people"],
        ["looked", "1", "few", "people"],
        ["feature", "export", "12", "viewed", "0", "clicked", "0", "completed", "few", "people"],
    ]


def test_only_the_days_asked_for_are_listed(pbmon, tmp_path):
    pbmon("store", "upgrade")
    now = time.time_ns() // 1000
    store = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    open_writer(store, "opt-out").write(
        [portion(event("new", at=now - DAY), event("old", at=now - 3 * DAY))]
    )
    assert "old" not in pbmon("store", "events", "--days", "2").stdout
    assert [line.split()[0] for line in pbmon("store", "events").stdout.splitlines()] == [
        "new", "old",
    ]  # fmt: skip


def test_what_people_answered(pbmon, tmp_path):
    pbmon("store", "upgrade")
    now = time.time_ns() // 1000
    store = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    answers = [answer(10, user=str(n), at=now - n, comment="fine\n\x1b[1m") for n in range(30)]
    answers += [answer(6, user=str(n), at=now - DAY) for n in range(100, 110)]
    answers += [answer(0, user="old", at=now - 8 * DAY)]
    open_writer(store, "opt-out").write([portion(*answers)])
    lines = pbmon("store", "feedback").stdout.splitlines()
    assert lines[0] == "nps: 40 answers, figure 50.0, mean 9.0"
    counts = dict.fromkeys(map(str, range(11)), "0") | {"6": "10", "10": "30"}
    assert dict(line.split() for line in lines[1:12]) == counts
    assert lines[12].split()[1:] == ["10", r"fine\n\x1b[1m"]
    assert len(lines) == 12 + 20
    assert pbmon("store", "feedback", "--survey", "csat").stdout == "csat: answers of few people\n"
    wrong = pbmon("store", "feedback", "--survey", "mood")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "pbmon: there is no survey mood; there are csat, nps, text\n"


def test_postgresql_is_made_by_the_command_with_its_outbox(pbmon, stack_postgres, tmp_path):
    url = new_database(stack_postgres.url)
    application = f"sqlite:///{tmp_path}/app.sqlite3"
    done = pbmon("store", "upgrade", PBMON_STORE_URL=url, PBMON_OUTBOX_URL=application)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("store postgresql://REDACTED@")
    assert lines[0].endswith(f" was made (version {VERSION})")
    assert lines[1] == f"database {application} has the outbox"
    with open_engine(application).connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM pbmon_outbox").scalar() == 0


@pytest.mark.parametrize(
    ("action", "url", "said"),
    [
        ("status", "mysql://app:hunter2@h/x", "mysql://REDACTED@h/x names mysql; the store is"),
        ("events", "nonsense", "nonsense is no SQLAlchemy URL, such as postgresql://"),
        ("upgrade", "sqlite:////proc/none/x", "can't be made: this user can't open the file"),
        ("status", "postgresql+nodriver://h/x", "needs a driver that is not installed"),
        ("status", AWAY, "nobody listens there"),
        ("upgrade", AWAY, "nobody listens there"),
        ("events", AWAY, "nobody listens there"),
    ],
    ids=list("1234567"),
)
def test_a_store_that_can_t_be_used_is_one_line_with_the_remedy(pbmon, action, url, said):
    done = pbmon("store", action, PBMON_STORE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("pbmon: the store ")
    assert said in line
    assert "hunter2" not in line


def test_growth_figures_are_taken_anew_and_shown(pbmon, tmp_path):
    store = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    events = [event(at=NOON, user="7"), event(at=NOON + DAY, user="7"), event(at=NOON, user="8")]
    open_writer(store, "opt-out").write([portion(*events)])
    done = pbmon("run", "growth", "--from", "2026-11-25", "--to", "2026-11-26")
    assert done.stdout.splitlines() == [
        "growth of 2026-11-25: 2 active, 2 new", "growth of 2026-11-26: 1 active, 0 new",
    ]  # fmt: skip
    shown = pbmon("store", "growth", "--day", "2026-11-26").stdout.splitlines()
    assert shown[0] == "2026-11-26 (UTC), by activity"
    assert [line.split() for line in shown[1:]] == [
        ["new", "0"], ["active_24h", "1"], ["active_7d", "2"], ["active_30d", "2"],
        ["churned", "0"], ["reactivated", "0"], ["total", "2"], ["retention", "not", "known"],
        ["stickiness", "50.0%"],
    ]  # fmt: skip
    done = pbmon("store", "growth", "--day", "2026-01-01")
    assert (done.returncode, done.stdout) == (
        1, "no figures of 2026-01-01; `pbmon run growth` takes them\n",
    )  # fmt: skip
    done = pbmon("run", "growth", "--day", "2999-12-31")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pbmon run: 2999-12-31 is not over; the newest day that is: 20")
    done = pbmon("run", "users")
    assert (done.returncode, done.stderr) == (1, "pbmon run: users needs the setting users\n")
    done = pbmon("run", "retention", "--from", "2026-11-25")
    assert done.returncode == 2
    assert "are for growth" in done.stderr


@pytest.mark.parametrize("arguments", [("store", "status"), ("worker",), ("worker", "--once")])
def test_without_a_state_directory_it_says_so(arguments):
    done = run(sys.executable, "-m", "pbmon.cli", *arguments, PBMON_STATE_DIR="/proc/none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pbmon: no state directory: /proc/none can't be used")


def test_the_worker_ends_at_once_when_nothing_waits(pbmon, tmp_path):
    done = pbmon("worker", "--once")
    assert (done.returncode, done.stdout) == (0, "0 events stored\n")
    assert not (tmp_path / "state" / "store").exists()


def test_a_worker_that_can_t_reach_the_store_leaves_all_and_fails(pbmon, tmp_path):
    python(
        "import pbmon; pbmon.configure(worker='process'); pbmon.track('made')",
        PBMON_STATE_DIR=str(tmp_path / "state"), PBMON_SERVICE_NAME="shop",
        OTEL_LOGS_EXPORTER="none",
    )  # fmt: skip
    away = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    done = pbmon("worker", "--once", PBMON_STORE_URL=away)
    assert done.returncode == 1
    assert "can't be used: nobody listens there; start the server" in done.stderr
    assert "hunter2" not in done.stderr
    done = pbmon("worker", "--once")
    assert (done.returncode, done.stdout) == (0, "1 events stored\n")
