"""flush(durable=True) and aflush(), in fresh processes whose store is away."""

from __future__ import annotations

import json

import pytest

from tests.fresh import python
from tests.stack.process import unused_port

BEGIN = """
import asyncio, errno, json, os, sys, threading, time
from pathlib import Path

fsync, synced, failing = os.fsync, [], []

def watched(fd):
    path = os.readlink(f"/proc/self/fd/{fd}")
    synced.append(path)
    for part, code in failing:
        if path.endswith(part):
            raise OSError(code, os.strerror(code))
    fsync(fd)

os.fsync = watched
import pbmon

def segments():
    return [Path(path).name for path in synced if path.endswith(".seg")]

"""


def run(tmp_path, code):
    done = python(
        BEGIN + code,
        PBMON_STATE_DIR=str(tmp_path / "state"), PBMON_SERVICE_NAME="shop",
        PBMON_STORE_URL=f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x",
        OTEL_LOGS_EXPORTER="none",
    )  # fmt: skip
    return json.loads(done.stdout), done.stderr


def test_it_is_on_the_disk_though_the_store_is_away(tmp_path):
    said, _ = run(
        tmp_path,
        """
said = [pbmon.flush(durable=True), asyncio.run(pbmon.aflush())]  # before configure()
pbmon.configure()
said += [pbmon.flush(60, durable=True), list(synced)]
pbmon.track("made")
said += [pbmon.flush(60, durable=True), segments(), [p for p in synced if p.endswith("/shop")]]
synced.clear()
pbmon.track("made")
said += [asyncio.run(pbmon.aflush(60)), segments(), pbmon.flush(0.2)]
print(json.dumps(said))
pbmon.shutdown(0.1)
""",
    )
    (*before, nothing, first, one, names, second, again, stored) = said
    assert before == [True, True, True]
    assert nothing == []
    assert (first, one) == (True, ["events-00000001.seg"])
    assert names == [str(tmp_path / "state" / "events" / "shop")]
    assert (second, again) == (True, ["events-00000001.seg"])
    assert stored is False  # that is what the store is asked for


@pytest.mark.parametrize("part", [".seg", "/events"])
def test_a_disk_that_fails_is_false_and_told_once(tmp_path, part):
    said, err = run(
        tmp_path,
        f"""
pbmon.configure()
pbmon.track("made")
failing.append(({part!r}, errno.EIO))
said = [pbmon.flush(60, durable=True), asyncio.run(pbmon.aflush(60)), bool(pbmon.track("made"))]
failing.clear()
said.append(pbmon.flush(60, durable=True))
print(json.dumps(said))
""",
    )
    # A name is asked for again; what a file lost nobody knows.
    assert said == [False, False, True, part == "/events"]
    assert err.count("can't be written to the disk itself (Input/output error)") == 1


def test_the_loop_goes_on_and_one_write_serves_all(tmp_path):
    said, _ = run(
        tmp_path,
        """
pbmon.configure()
let_go, begun = threading.Event(), threading.Event()
fsync_now = fsync

def slow(fd):
    begun.set()
    assert let_go.wait(60)
    fsync_now(fd)

fsync = slow

async def main():
    loop = asyncio.get_running_loop()
    pbmon.track("made")
    first = asyncio.create_task(pbmon.aflush(60))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(200):  # the loop goes on, and so does track()
        pbmon.track("made")
    tasks = [asyncio.create_task(pbmon.aflush(60)) for _ in range(200)]
    late = await pbmon.aflush(0.01)
    for task in tasks[:100]:
        task.cancel()
    done = await asyncio.gather(*tasks[:100], return_exceptions=True)
    cancelled = sum(isinstance(each, asyncio.CancelledError) for each in done)
    waiting = sum(not task.done() for task in tasks)
    let_go.set()
    return late, cancelled, waiting, await first, sum(await asyncio.gather(*tasks[100:]))

said = asyncio.run(main())
print(json.dumps([*said, segments()]))
""",
    )
    *said, segments = said
    assert said == [False, 100, 100, True, 100]
    assert segments == ["events-00000001.seg"] * 2


def test_aflush_sends_as_flush_does_without_durable(tmp_path):
    said, _ = run(
        tmp_path,
        """
store = os.environ["PBMON_STATE_DIR"] + "/own.sqlite3"
pbmon.configure(store_url="sqlite:///" + store)

async def main():
    pbmon.track("made")
    return await asyncio.gather(*(pbmon.aflush(60, durable=False) for _ in range(50)))

said = asyncio.run(main())
import sqlite3
file = sqlite3.connect(store)
print(json.dumps([set(said) == {True}, file.execute("SELECT count(*) FROM events").fetchone()]))
""",
    )
    assert said == [True, [1]]


def test_a_forked_child_answers_for_its_own(tmp_path):
    said, _ = run(
        tmp_path,
        """
pbmon.configure()
pbmon.track("made")
reader, writer = os.pipe()
if os.fork() == 0:
    done = [pbmon.flush(60, durable=True), segments()]
    pbmon.track("made")
    done += [pbmon.flush(60, durable=True), segments()]
    os.write(writer, json.dumps(done).encode())
    os._exit(0)
os.wait()
print(os.read(reader, 10**6).decode())
""",
    )
    assert said == [True, [], True, ["events-00000001.seg"]]
