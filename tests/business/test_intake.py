"""The way into the journal: made at the first use, once, whoever comes at the same time."""

from __future__ import annotations

import os
import shutil
import threading

import pytest

from pbmon import runtime, signals
from pbmon.business.intake import Intake
from pbmon.spool import journal
from pbmon.spool.backlog import Backlog
from pbmon.spool.directory import UnusableError
from pbmon.spool.ledger import Position


@pytest.fixture
def home(tmp_path):
    return journal.open_home(str(tmp_path / "state"), "shop")


@pytest.fixture
def intake(tmp_path):
    made = Intake(lambda: journal.open_home(str(tmp_path / "state"), "shop"), lambda _: None)
    yield made
    made.close()


def payloads(intake):
    chunk = Backlog(intake._journal.directory).read(Position(0, 0), 10**6, 10**9)
    return sorted(item.payload for item in chunk.items)


def test_the_journal_is_made_at_the_first_use(home):
    begun = []
    intake = Intake(lambda: home, begun.append)
    assert (begun, list(home.path.iterdir())) == ([], [])
    assert [intake.put(b"1"), intake.put(b"2")] == ["", ""]
    assert begun == [home]
    assert payloads(intake) == [b"1", b"2"]
    assert intake.totals() == {("accepted", ""): 2}
    intake.close()


def test_who_comes_while_it_is_made_waits_for_it(home):
    making, go_on = threading.Event(), threading.Event()

    def slow_home():
        making.set()
        go_on.wait(60)
        return home

    intake = Intake(slow_home, lambda _: None)
    said = []
    threads = [
        threading.Thread(target=lambda n=n: said.append(intake.put(b"%d" % n))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    assert making.wait(60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert said == [""] * 8
    assert len(payloads(intake)) == 8
    assert len([path for path in home.path.iterdir() if path.is_dir()]) == 1
    intake.close()


def test_what_comes_in_the_middle_of_the_making_of_the_same_thread_is_refused(home):
    said = []
    intake = Intake(lambda: said.append(intake.put(b"in")) or home, lambda _: None)
    assert intake.put(b"out") == ""
    assert said == ["busy"]
    assert intake.totals() == {("accepted", ""): 1, ("refused", "busy"): 1}
    intake.close()


def test_without_a_place_it_is_refused_and_tried_again(home, caplog, monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
    broken = [True]

    def open_home():
        if broken:
            raise UnusableError("/nowhere can't be made")
        return home

    intake = Intake(open_home, lambda _: None)
    assert [intake.put(b"1"), intake.put(b"2")] == ["no_state_directory"] * 2
    assert caplog.text.count("no state directory for events: /nowhere can't be made") == 1
    broken.clear()
    assert intake.put(b"3") == ""
    assert intake.totals() == {("accepted", ""): 1, ("refused", "no_state_directory"): 2}
    intake.close()


def test_after_the_end_nothing_is_taken(intake):
    assert intake.put(b"1") == ""
    intake.close()
    assert intake.put(b"2") == "shut_down"
    intake.look_after()
    assert intake.put(b"3") == "shut_down"


def test_another_journal_where_the_first_can_t_be_used(intake):
    intake.put(b"1")
    first = intake._journal
    for file in first.directory.iterdir():
        file.unlink()
    first.directory.rmdir()
    intake.look_after()
    assert intake.put(b"2") == ""
    assert intake._journal is not first
    assert payloads(intake) == [b"2"]


def test_a_journal_that_was_removed_is_told_once_and_no_sync_hides_it(intake, caplog, monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
    intake.put(b"1")
    shutil.rmtree(intake._journal.directory)
    intake.look_after()
    assert intake.put(b"2") == ""
    assert [intake.sync(), intake.sync()] == [False, True]
    assert caplog.text.count("was removed while it was in use; events in it that were not") == 1


def test_the_journal_before_is_synced_too_once(intake, monkeypatch):
    intake.put(b"1")
    first = intake._journal
    monkeypatch.setattr(type(first), "is_usable", property(lambda self: self is not first))
    intake.look_after()
    intake.put(b"2")
    synced = []

    def sync(made):
        synced.append(made)

    monkeypatch.setattr(journal.Journal, "sync", sync)
    assert [intake.sync(), intake.sync()] == [True, True]
    assert synced == [first, intake._journal, intake._journal]


def test_after_the_end_it_can_still_be_synced(intake):
    assert intake.sync()
    intake.put(b"1")
    intake.close()
    assert intake.sync()
    assert intake._left == []


def test_in_an_outbox_the_journal_gets_nothing(intake):
    box = []
    token = runtime.outbox.set(box)
    assert intake.put(b"1") == ""
    assert intake.put(b"x" * 50_000) == "too_large"
    runtime.outbox.reset(token)
    assert box == [b"1"]
    assert payloads(intake) == []
    assert intake.totals() == {("accepted", ""): 0, ("refused", "too_large"): 1}


def test_a_full_disk_is_told_once(intake, caplog, monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
    intake.put(b"1")
    monkeypatch.setattr(intake._journal, "append", lambda _: "full")
    assert [intake.put(b"2"), intake.put(b"3")] == ["full", "full"]
    assert caplog.text.count("there is no room for more events") == 1


def test_a_disk_that_fails_is_told_once_with_the_place(intake, caplog, monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
    intake.put(b"1")
    monkeypatch.setattr(intake._journal, "append", lambda _: "io_error")
    assert [intake.put(b"2"), intake.put(b"3")] == ["io_error", "io_error"]
    assert intake.totals() == {("accepted", ""): 1, ("refused", "io_error"): 2}
    assert caplog.text.count(f"events can't be written to {intake._journal.directory}") == 1


def test_a_child_has_a_journal_of_its_own(intake):
    intake.put(b"1")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        intake.forget()
        said = intake.put(b"2")
        ours = payloads(intake) == [b"2"] and intake.totals() == {("accepted", ""): 1}
        os.write(writer, b"yes" if ours and not said else b"no")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 3) == b"yes"
    assert intake.put(b"3") == ""
    assert payloads(intake) == [b"1", b"3"]
