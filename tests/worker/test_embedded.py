"""The worker inside an application, in fresh processes: what is started when, and what is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pbmon.store import engine, tables
from tests.fresh import environment, launched, python
from tests.stack.process import wait_until

OFF = {"OTEL_LOGS_EXPORTER": "none", "PBMON_CONSENT": "opt-out", "PBMON_SERVICE_NAME": "shop"}


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def variables(state, **more):
    return OFF | {"PBMON_STATE_DIR": str(state)} | more


PATIENT = "from pbmon import wiring; wiring.EXIT_TIMEOUT_S = 60.0; "
"""Before a program's code: its end takes as long as a busy machine needs."""


def to_its_end(code, **values):
    return python(PATIENT + "\n" + textwrap.dedent(code), **values)


def stored(state):
    """Names of the events in the default store, each as often as it is there."""
    made = engine.open_store(f"sqlite:///{state}/store/shop.sqlite3")
    with made.connect() as connection:
        names = sorted(connection.execute(tables.events.select()).columns("name").scalars())
    made.dispose()
    return names


def journals(state):
    return sorted(path.name for path in state.glob("events/shop/[0-9]*"))


def test_who_calls_no_business_function_pays_for_nothing(state):
    done = python(
        """
        import json, sys, threading
        import pbmon
        pbmon.configure()
        pbmon.flush(60)
        print(json.dumps([
            [t.name for t in threading.enumerate() if t.name.startswith("pbmon-ship")],
            "sqlalchemy" in sys.modules, "alembic" in sys.modules,
        ]))
        """,
        **variables(state),
    )
    assert json.loads(done.stdout) == [[], False, False]
    assert not (state / "events").exists()
    assert not (state / "store").exists()


def test_a_short_program_stores_at_its_end_what_it_tracked(state):
    to_its_end(
        """
        import pbmon
        pbmon.configure()
        for n in range(250):
            assert pbmon.track("made", {"n": n})
        """,
        **variables(state),
    )
    assert stored(state) == ["made"] * 250
    to_its_end("import pbmon; pbmon.configure(); pbmon.track('next')", **variables(state))
    assert stored(state) == [*["made"] * 250, "next"]
    # The last one is removed by whoever comes next.
    assert len(journals(state)) <= 1


def test_the_launcher_alone_is_enough(state):
    launched(PATIENT + "import pbmon; assert pbmon.track('made')", **variables(state))
    assert stored(state) == ["made"]


def test_flush_brings_everything_into_the_store(state):
    done = python(
        f"""
        import sqlite3
        import pbmon
        pbmon.configure()
        pbmon.track("made")
        assert pbmon.flush(60) is True
        file = sqlite3.connect({str(state / "store" / "shop.sqlite3")!r})
        print(file.execute("SELECT count(*) FROM events").fetchone()[0])
        """,
        **variables(state),
    )
    assert done.stdout.strip() == "1"


def test_forked_children_have_journals_of_their_own(state):
    python(
        """
        import os, sys
        import pbmon
        pbmon.configure()
        pbmon.track("parent")
        for _ in range(3):
            if os.fork() == 0:
                for _ in range(10):
                    assert pbmon.track("child")
                os._exit(0)  # no end of ours: the others find what it left
        for _ in range(3):
            assert os.wait()[1] == 0
        pbmon.track("parent")
        assert pbmon.flush(60)
        """,
        **variables(state),
    )
    assert stored(state) == ["child"] * 30 + ["parent"] * 2


def test_what_a_killed_process_accepted_is_stored_by_the_next_one(state):
    code = """
        import os, signal
        import pbmon
        pbmon.configure(worker="process")
        for _ in range(100):
            assert pbmon.track("made")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(**variables(state)), cwd=Path(sys.prefix), check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert not (state / "store").exists()
    to_its_end("import pbmon; pbmon.configure(); pbmon.track('next')", **variables(state))
    assert stored(state) == [*["made"] * 100, "next"]


def test_a_worker_of_its_own_takes_all_of_it(state):
    env = environment(**variables(state, PBMON_WORKER="process"))
    worker = subprocess.Popen(
        [sys.executable, "-m", "pbmon.cli", "worker"], env=env, cwd=Path(sys.prefix),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "pbmon worker of shop" in worker.stdout.readline()
        python(
            """
            import threading, sys, time
            import pbmon
            pbmon.configure()
            for _ in range(100):
                assert pbmon.track("made")
            assert pbmon.flush(60)
            assert "sqlalchemy" not in sys.modules
            """,
            **variables(state, PBMON_WORKER="process"),
        )
        wait_until(
            lambda: (state / "store").exists() and not journals(state), "the journal to be read"
        )
    finally:
        worker.send_signal(signal.SIGTERM)
        said = worker.communicate(timeout=30)[0]
    assert worker.returncode == 0
    assert said == "100 events stored\n"
    assert stored(state) == ["made"] * 100


def test_without_a_state_directory_events_are_refused_with_the_remedy(tmp_path):
    done = python(
        """
        import pbmon
        pbmon.configure()
        said = [pbmon.track("made") for _ in range(3)]
        print([(bool(one), one.reason) for one in said])
        """,
        **OFF | {"PBMON_STATE_DIR": "/proc/none"},
    )
    assert done.stdout.strip() == str([(False, "no_state_directory")] * 3)
    assert done.stderr.count("no state directory for events") == 1
    assert "Set PBMON_STATE_DIR" in done.stderr


def test_a_store_named_by_a_variable_that_is_not_set_is_said(state):
    done = to_its_end(
        "import pbmon; pbmon.configure(); pbmon.track('made')",
        **variables(state, PBMON_STORE_URL="env:SHOP_DATABASE"),
    )
    assert "store_url names the variable SHOP_DATABASE, which is not set" in done.stderr
    assert stored(state) == ["made"]


def test_another_directory_takes_over_where_the_first_was_removed(state):
    python(
        f"""
        import shutil, time
        import pbmon
        from pbmon import wiring
        pbmon.configure()
        pbmon.track("made")
        assert pbmon.flush(60)
        shutil.rmtree({str(state / "events")!r})
        wiring._worker.intake.look_after()
        assert pbmon.track("again")
        assert pbmon.flush(60)
        """,
        **variables(state),
    )
    assert stored(state) == ["again", "made"]


REMOVED = """
        import shutil, sqlite3, time
        import pbmon
        from pbmon import wiring
        pbmon.configure()
        pbmon.track("made")
        assert wiring._worker.shipper is None or pbmon.flush(60)
        before = wiring._worker.intake._journal
        shutil.rmtree({state!r})
        until_s = time.monotonic() + 60
        while wiring._worker.intake._journal in (before, None):
            assert time.monotonic() < until_s
            time.sleep(0.01)
        assert pbmon.track("again")
"""


def test_the_whole_state_directory_is_removed_the_store_with_it(state):
    done = python(
        REMOVED.format(state=str(state))
        + """
        while not pbmon.flush(60):  # the store that is not there any more is found out first
            assert time.monotonic() < until_s
        """,
        **variables(state),
    )
    assert stored(state) == ["again"]
    assert done.stderr.count("was removed while it was in use") == 1


def test_without_a_shipper_a_removed_journal_is_found_out_too(state):
    done = python(REMOVED.format(state=str(state)), **variables(state, PBMON_WORKER="process"))
    assert done.stderr.count("was removed while it was in use") == 1
    to_its_end("import pbmon; pbmon.configure(); pbmon.track('next')", **variables(state))
    assert stored(state) == ["again", "next"]


def test_in_another_place_another_shipper_goes_on(state, tmp_path):
    """As for a process that has become another user."""
    other = tmp_path / "other"
    done = python(
        f"""
        import json, time
        import pbmon
        from pbmon import wiring
        pbmon.configure()
        pbmon.track("made")
        assert pbmon.flush(60)
        worker = wiring._worker
        first, thread = worker.shipper, worker.shipper._thread
        worker.intake._journal._owner += 1
        pbmon.configure(state_dir={str(other)!r})
        until_s = time.monotonic() + 50
        while worker.shipper is first:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        thread.join(60)
        assert not thread.is_alive() and not first.is_on_duty
        assert pbmon.track("again")
        assert pbmon.flush(60)
        print(json.dumps(pbmon.runtime.active.accounts()["events"]))
        """,
        **variables(state),
    )
    assert json.loads(done.stdout) == {"accepted": 2, "delivered": 2}
    assert (stored(state), stored(other)) == (["made"], ["again"])


def test_the_books_of_a_process_balance(state):
    done = python(
        """
        import json
        import pbmon
        from pbmon.runtime import active
        pbmon.configure()
        for n in range(10):
            pbmon.track("made", event_id=str(n % 8))
        pbmon.flush(60)
        print(json.dumps(active.accounts()["events"]))
        """,
        **variables(state),
    )
    assert json.loads(done.stdout) == {"accepted": 10, "delivered": 8, "dropped duplicate": 2}


def test_nothing_is_taken_after_the_end(state):
    python(
        """
        import pbmon
        pbmon.configure()
        assert pbmon.track("made")
        pbmon.shutdown(60)
        assert pbmon.track("late").reason == "shut_down"
        """,
        **variables(state),
    )
    assert stored(state) == ["made"]


def test_figures_are_read_from_the_store_in_force_in_each_process(state):
    done = to_its_end(
        """
        import datetime as dt, os
        import pbmon
        now = dt.datetime.now(dt.timezone.utc)
        day = dt.timedelta(days=1)
        pbmon.configure()

        def told():
            try:
                return pbmon.feedback_summary(now - day, now + day).responses
            except pbmon.StoreError as error:
                return error

        print(told(), flush=True)
        for user in range(12):
            assert pbmon.feedback(10, user_id=user, comment="fine")
        assert pbmon.flush(60)
        print(told(), flush=True)
        if os.fork() == 0:
            print(told(), flush=True)
            os._exit(0)
        os.wait()
        pbmon.configure(store_url="mysql://app:hunter2@h/x")
        print(told())
        """,
        **variables(state),
    )
    *counts, last = done.stdout.splitlines()
    assert counts == ["None", "12", "12"]
    assert last == "the store mysql://REDACTED@h/x names mysql; the store is PostgreSQL or SQLite"
