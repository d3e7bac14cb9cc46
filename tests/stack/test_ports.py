"""All servers alike: a lost port is replaced, and nothing but loopback is bound."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.stack import process
from tests.stack.plugin import started
from tests.stack.postgres import URL_VARIABLE, Postgres
from tests.stack.process import Server
from tests.stack.samples import NOWHERE, PIPELINE
from tests.stack.servers import Alertmanager, Collector, Jaeger, Prometheus

ALERTMANAGER = Path(__file__).resolve().parents[2] / "collector-config" / "alertmanager.yml"
SERVERS: list[Callable[[], Server]] = [
    Prometheus,
    Jaeger,
    lambda: Alertmanager(ALERTMANAGER),
    lambda: Collector(PIPELINE, NOWHERE),
    Postgres,
]
NAMES = ["prometheus", "jaeger", "alertmanager", "collector", "postgres"]


class AlwaysFine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def another_server() -> Iterator[int]:
    """Somebody else's server, on the port that is yielded."""
    with ThreadingHTTPServer(("127.0.0.1", 0), AlwaysFine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("make", SERVERS, ids=NAMES)
def test_a_port_lost_to_another_is_replaced_and_then_kept(
    make: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each server says in its own words that its port is taken; we must understand them all.

    The other one answers every GET with 200, and must not be taken for ours.
    """
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    real = process.free_ports
    with another_server() as taken:
        rounds: list[list[int]] = []

        def first_taken(count: int) -> list[int]:
            rounds.append([taken] * count if not rounds else real(count))
            return rounds[-1]

        monkeypatch.setattr(process, "free_ports", first_taken)
        with started(make()) as server:
            assert len(rounds) == 2
            assert taken not in server.ports.values()
            ports = dict(server.ports)
            server.kill()
            server.start()
            assert server.ports == ports
            assert server.is_running


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets. It lives: what it closes meanwhile is none of them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                inodes.add(found.group(1))
    return inodes


@pytest.mark.parametrize("name", NAMES)
def test_only_loopback_is_bound(name: str, request: pytest.FixtureRequest) -> None:
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not tables[0].exists():
        pytest.skip("the kernel's socket table is needed, Linux has it")
    server = request.getfixturevalue(f"stack_{name}")
    if name == "collector":
        server = server(PIPELINE, NOWHERE)
    if name == "alertmanager":
        server = server(ALERTMANAGER)
    if not server.is_running:
        pytest.skip(f"the server of {URL_VARIABLE} isn't ours")
    inodes = sockets_of(server.pid)
    rows = [
        row.split() for table in tables if table.exists() for row in table.read_text().splitlines()
    ]
    listening = {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}
    wanted = {f"0100007F:{port:04X}" for port in server.ports.values()}
    assert listening
    assert listening <= wanted
    # Columns: address, references, protocol, flags (bit 16: listens), type, state, inode, path.
    unix = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert [row for row in unix if row[6] in inodes and int(row[3], 16) & 0x10000] == []
