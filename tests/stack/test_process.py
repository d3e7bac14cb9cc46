"""Starting and stopping, on a server small enough to misbehave at will."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import process, web
from tests.stack.process import (
    HOST,
    Server,
    ServerError,
    free_ports,
    hold_port,
    unused_port,
    wait_until,
)

SERVE = """\
import http.server, sys
print("serving", sys.argv[1], flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])),
                                http.server.BaseHTTPRequestHandler).serve_forever()
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVE
BROKEN = "import sys; print('the reason why'); sys.exit(3)"


class Little(Server):
    name = "little"
    port_names = ("http",)

    def __init__(self, program: str = SERVE) -> None:
        super().__init__()
        self.program = program

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports['http']}/"

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self.ports["http"])]

    def is_ready(self) -> bool:
        return web.status(self.url) is not None


def test_it_is_ready_when_entered_and_gone_when_left() -> None:
    with Little() as server:
        assert web.status(server.url) == 501  # it has no do_GET
        assert f"serving {server.ports['http']}\n" in server.log()
        pid, home = server.pid, server.home
        assert Server.running[-1] is server
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not home.exists()
    assert server not in Server.running
    assert web.status(server.url) is None
    server.close()  # twice is harmless


def test_a_restart_keeps_port_data_and_log() -> None:
    with Little() as server:
        port = server.ports["http"]
        (server.home / "data").write_text("kept")
        server.kill()
        assert not server.is_running
        assert server.start() is server
        assert server.ports["http"] == port
        assert (server.home / "data").read_text() == "kept"
        assert server.log().count("serving") == 2


def test_what_ends_at_once_shows_its_log() -> None:
    server = Little(BROKEN)
    with pytest.raises(ServerError, match=r"little ended with status 3(.|\n)*the reason why"):
        server.start()
    assert not server.is_running
    assert server not in Server.running


def test_what_never_gets_ready_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "READY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(Little, "is_ready", lambda self: False)
    server = Little("print('not yet', flush=True); import time; time.sleep(60)")
    pids: list[int] = []
    spawn = Little._spawn

    def noted(self: Little) -> None:
        spawn(self)
        pids.append(self.pid)

    monkeypatch.setattr(Little, "_spawn", noted)
    with pytest.raises(ServerError, match=r"wasn't ready"):
        server.start()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_what_ignores_the_stop_is_killed_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.3)
    server = Little(DEAF).start()
    pid = server.pid
    with pytest.raises(ServerError, match="didn't stop within 0 s of SIGTERM and was killed"):
        server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_crash_in_between_is_told() -> None:
    crash = "import os, threading\nthreading.Timer(0.5, lambda: os._exit(7)).start()\n"
    server = Little(crash + SERVE).start()
    wait_until(lambda: not server.is_running, "the crash")
    with pytest.raises(ServerError, match="little ended by itself with status 7"):
        server.close()


def test_servers_see_none_of_the_callers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "leaked=1")
    monkeypatch.setenv("HTTP_PROXY", f"http://{HOST}:{unused_port()}")
    dump = "import os; print(sorted(os.environ), flush=True)\n" + SERVE
    with Little(dump) as server:
        assert "PATH" in server.log()
        assert "OTEL_" not in server.log()
        assert "PROXY" not in server.log()


def test_free_ports_differ_and_are_below_the_ephemeral_range() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert set(ports) <= set(process.PORTS)


def test_a_held_port_refuses_clients_and_other_servers_and_takes_its_own() -> None:
    with hold_port() as held:
        address = held.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        for _ in range(2):  # as often as it likes
            with socket.create_server(address), socket.create_connection(address):
                pass


def test_at_an_unused_port_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, unused_port()))
    assert unused_port() == unused_port()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux's /proc is needed")
def test_children_are_waited_for() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as parent:
        (child,) = process.children(parent.pid, 1)
        assert os.getpgid(child) == parent.pid
        assert parent.stdin is not None
        parent.stdin.write(b"\n")


def test_waiting_names_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match="pigs fly"):
        wait_until(lambda: False, "pigs fly", timeout_s=0.05)
