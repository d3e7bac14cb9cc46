"""The file of a run: every request of a known route, from every process, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pbmon.gate.runs import Request, decode
from pbmon.runtime import active
from pbmon.settings import Settings
from pbmon.testing import capture
from tests.telemetry.drive import http, raised, request

PROGRAM = """
import os, signal, sys
from pbmon.runtime import active
from pbmon.testing import capture
from pbmon.telemetry.recording import RunFile
from tests.telemetry.drive import http, request

with capture() as seen:
    active.requests.record(RunFile(sys.argv[1]))
    for number in range(500):
        request(seen, http(method="PUT"), route="/" + sys.argv[2] * 100, first_s=number / 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run.jsonl"


def lines(path):
    return list(decode(path.read_bytes().splitlines(keepends=True), "run"))


def recorded(path, *changes):
    """Settings of an application, applied one after another; each with a request."""
    with capture() as seen:
        active.requests.record(None)
        for number, change in enumerate(changes):
            active.requests.apply(Settings(**change))
            request(seen, route=f"/{number}", first_s=0.25)
        active.requests.apply(Settings())
    return [each.route for each in lines(path)]


def test_requests_of_known_routes_as_a_budget_judges_them(run):
    with capture(requests_file=str(run), stream_routes=["/stream"]) as seen:
        active.requests.record(None)
        active.requests.apply(active.settings)
        request(seen, http(method="PUT"), route="/a/{id}", first_s=0.25, last_s=0.5)
        request(seen, http(method="BREW"), route="/stream", first_s=0.25, last_s=0.5)
        request(seen, http("/nowhere"), route=None, status=404)
        request(seen, route="/a/{id}", status=503, first_s=1.0)
        request(seen, route="/ü", status=None, error=raised(KeyError("x")), first_s=2.0)
        active.requests.apply(Settings())
    assert lines(run) == [
        Request("PUT", "/a/{id}", 0.75),
        Request("_OTHER", "/stream", 0.25),
        Request("GET", "/a/{id}", 1.0, failed=True),
        Request("GET", "/ü", 2.0, failed=True),
    ]
    assert run.stat().st_mode & 0o777 == 0o600


def test_it_changes_with_the_settings(run, tmp_path):
    other = tmp_path / "other.jsonl"
    to, nowhere = {"requests_file": str(run)}, {}
    assert recorded(run, to, nowhere, to, to, {"requests_file": str(other)}) == ["/0", "/2", "/3"]
    assert [each.route for each in lines(other)] == ["/4"]


def test_it_is_added_to(run):
    run.write_text('{"method":"GET","route":"/before","duration_s":1}\n', encoding="utf-8")
    assert recorded(run, {"requests_file": str(run)}) == ["/before", "/0"]


def test_a_file_that_can_not_be_made_is_said_and_nothing_else(tmp_path, caplog):
    path = str(tmp_path / "not" / "there")
    with capture() as seen:
        active.requests.record(None)
        active.requests.apply(Settings(requests_file=path))
        request(seen, route="/x")
        assert seen.metric("http.server.request.duration")[0] == 1
    assert f"requests can't be recorded in {path} (No such file or directory)" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_said_and_nothing_else(caplog, monkeypatch):
    from pbmon import signals

    monkeypatch.setattr(signals, "_last_told", {})
    with capture() as seen:
        active.requests.record(None)
        active.requests.apply(Settings(requests_file="/dev/full"))
        request(seen, route="/x")
        active.requests.apply(Settings())
    assert "can't be recorded in /dev/full (No space left on device)" in caplog.text


def test_processes_that_are_killed_leave_whole_lines(run):
    """Two at once, into one file."""
    command = [sys.executable, "-c", PROGRAM, str(run)]
    started = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [process.wait(120) for process in started] == [-signal.SIGKILL] * 2
    for name in "ab":
        durations = [each.duration_s for each in lines(run) if each.route == "/" + name * 100]
        assert durations == [number / 1000 for number in range(500)]
