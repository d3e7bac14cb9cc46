"""Errors of real processes: sums that are exact over servers' workers, forks, kills and restarts,
and nothing of what an exception says, anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from pbmon.store import tables
from pbmon.store.access import open_engine
from tests.fresh import environment, python, run
from tests.stack.process import hold_port, wait_until
from tests.store.conftest import BOTH, made_template, new_database
from tests.telemetry.receiver import Receiver

CANARY = "canary.4711@example.com"

OFF = {"OTEL_LOGS_EXPORTER": "none", "PBMON_CONSENT": "opt-out", "PBMON_SERVICE_NAME": "shop"}

PATIENT = "from pbmon import wiring; wiring.EXIT_TIMEOUT_S = 60.0\n"
"""Before a program's code: its end takes as long as a busy machine needs."""

TRACKING = textwrap.dedent("""
    import os, signal, sys, threading, time
    import pbmon
    from pbmon import runtime

    def fail():
        raise KeyError("canary.4711@example.com")

    def track(count):
        for _ in range(count):
            try:
                fail()
            except KeyError as error:
                assert pbmon.track_error(error)

    def waits():
        return any(tally.summed for tally in runtime.active.errors._tallies._tallies.values())
""")


@pytest.fixture
def variables(tmp_path):
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    return OFF | {"PBMON_STATE_DIR": str(tmp_path / "state"), "PBMON_STORE_URL": url}


def rows(url, table=tables.errors):
    made = open_engine(url)
    with made.connect() as connection:
        found = connection.execute(select(table)).all()
    made.dispose()
    return found


def totals(url):
    """Place → errors, as each of the tables has them."""
    places = {bytes(row.fingerprint): row.place.rpartition(":")[2] for row in rows(url)}
    found = Counter({places[bytes(row.fingerprint)]: row.errors for row in rows(url)})
    for table in (tables.error_hours, tables.error_slots):
        summed = Counter()
        for row in rows(url, table):
            summed[places[bytes(row.fingerprint)]] += row.errors
        assert summed == found
    return found


def bring_in(variables):
    """By another process, what was left."""
    done = run(sys.executable, "-m", "pbmon.cli", "worker", "--once", **variables)
    assert done.returncode == 0, done.stderr


def program(code, **variables):
    return python(PATIENT + TRACKING + textwrap.dedent(code), **variables)


# --- processes ---


def test_a_short_program_stores_at_its_end_what_it_counted(variables):
    program("pbmon.configure(); track(5000)", **variables)
    assert totals(variables["PBMON_STORE_URL"]) == {"fail": 5000}


def test_what_ends_a_program_is_stored(variables):
    code = PATIENT + TRACKING + "pbmon.configure(); fail()"
    done = run(sys.executable, "-c", code, **variables)
    assert (done.returncode, CANARY in done.stderr) == (1, True)  # as without us
    assert totals(variables["PBMON_STORE_URL"]) == {"fail": 1}


def test_forked_children_count_their_own(variables):
    program(
        """
        pbmon.configure()
        track(50)  # some of which are summed
        for _ in range(3):
            if os.fork() == 0:
                track(40)
                sys.exit(0)
        for _ in range(3):
            assert os.wait()[1] == 0
        track(50)
        """,
        **variables,
    )
    assert totals(variables["PBMON_STORE_URL"]) == {"fail": 100 + 3 * 40}


def test_of_a_killed_process_nothing_is_missing_that_was_written(variables):
    """Sums are, within a second, by the thread that looks after the journal."""
    code = PATIENT + TRACKING + textwrap.dedent("""
        pbmon.configure(worker="process")
        track(500)
        while waits():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    """)  # fmt: skip
    done = run(sys.executable, "-c", code, **variables)
    assert done.returncode == -signal.SIGKILL, done.stderr
    bring_in(variables)
    assert totals(variables["PBMON_STORE_URL"]) == {"fail": 500}
    program("pbmon.configure(); track(30)", **variables)  # and after a restart
    assert totals(variables["PBMON_STORE_URL"]) == {"fail": 530}


def test_a_terminated_process_writes_its_sums_down(variables, tmp_path):
    code = TRACKING + textwrap.dedent("""
        pbmon.configure(worker="process")
        track(500)
        print("ready", flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(**variables), cwd=tmp_path,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    process.stdout.close()
    bring_in(variables)
    assert totals(variables["PBMON_STORE_URL"]) == {"fail": 500}


# --- a server's workers ---

APP = textwrap.dedent("""
    import asyncio, threading
    import pbmon
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    pbmon.configure()
    CANARY = "canary.4711@example.com"

    def broken(note):
        held = f"local {note}"
        raise LookupError(held)

    async def fail(request):
        broken(CANARY)

    async def tracked(request):
        try:
            broken(CANARY)
        except LookupError as error:
            pbmon.track_error(error)
            raise

    def after():
        broken(CANARY)

    async def late(request):
        return PlainTextResponse("ok", background=BackgroundTask(after))

    async def flood(request):
        for _ in range(300):
            try:
                broken(CANARY)
            except LookupError as error:
                pbmon.track_error(error)
        return PlainTextResponse("ok")

    async def thread(request):
        started = threading.Thread(target=broken, args=(CANARY,))
        started.start()
        await asyncio.to_thread(started.join)
        return PlainTextResponse("ok")

    app = Starlette(routes=[
        Route(f"/{view.__name__}/{{id}}", view) for view in (fail, tracked, late, flood, thread)
    ])
    app.add_middleware(pbmon.error_middleware)
""")


@pytest.mark.parametrize("engine_name", BOTH)
def test_two_workers_of_a_server_are_one_sum(request, tmp_path, variables, engine_name):
    if engine_name == "postgresql":
        server = request.getfixturevalue("stack_postgres").url
        variables["PBMON_STORE_URL"] = new_database(server, made_template(server))
    views = ["fail", "tracked", "late", "thread"] * 6 + ["flood"] * 2
    (tmp_path / "shop.py").write_text(APP)
    with Receiver() as receiver:
        variables |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp",
            "PBMON_USER_FROM": "header:x-user", "PBMON_RELEASE": "1.4.2",
            "PYTHONPATH": str(tmp_path),
        }  # fmt: skip
        log, statuses = serve(tmp_path, variables, views)
        bring_in(variables)
        sent = b"".join(body for _, _, body in receiver.arrived)
    assert Counter(statuses) == {500: 12, 200: 14}
    url = variables["PBMON_STORE_URL"]
    assert totals(url) == {"broken": 4 * 6 + 2 * 300}
    (row,) = rows(url)
    assert (row.error_type, row.place, row.last_release) == ("LookupError", "shop:broken", "1.4.2")
    assert len(rows(url, tables.error_people)) == 3
    assert b"LookupError" in sent
    assert CANARY.encode() not in sent
    # A thread's is told by Python, one behind an answer by the server: as without us.
    assert log.count(CANARY) == 12
    for table in tables.metadata.sorted_tables:
        assert CANARY not in str(rows(url, table))
    for path in (tmp_path / "state").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()


def serve(directory, variables, views):
    """What the server said, and the statuses of its answers."""
    held = hold_port()
    port = held.getsockname()[1]
    held.close()
    log = directory / "log"
    command = [
        sys.executable, "-m", "uvicorn", "shop:app", "--workers", "2", "--port", str(port),
    ]  # fmt: skip
    env = environment(**variables)
    env["PYTHONPATH"] = os.pathsep.join((str(directory), str(Path(__file__).parents[2])))
    with log.open("w") as out:
        process = subprocess.Popen(command, env=env, cwd=directory, stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: log.read_text().count("startup complete") == 2, "the workers", 60)

        def ask(job):
            number, view = job
            headers = {"x-user": f"u{number % 3}"}
            return httpx.get(f"{url}/{view}/{number}", headers=headers, timeout=60).status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(ask, enumerate(views)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return log.read_text(), statuses
