"""What the hook of every server with processes of its own promises. A server's test class
inherits it, says how the server is started, and gives its hook."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from websockets.sync.client import connect

from pbmon.hooks.patches import Hook
from tests.fresh import environment
from tests.hooks.contract import owner_and_name
from tests.stack.process import hold_port, wait_until

START_S = 30
STOP_S = 30

# Every process writes what it sees as lines of one file. The hooks are put in by the
# application's module, the latest moment at which configure() may put them in.
PROGRAM = textwrap.dedent("""
    import atexit, json, os
    from pbmon import endings, runtime

    def note(event, *values):
        line = json.dumps([os.getpid(), event, *values]) + "\\n"
        with open(os.environ["OUT"], "a") as out:
            out.write(line)

    class Record:
        route = None
        def __init__(self, scope):
            note("asked", scope["type"], scope["path"], list(scope["client"] or ()))
        def response_started(self, status, headers): note("started", status)
        def response_completed(self): note("completed")
        def accepted(self): note("accepted")
        def disconnected(self, code): note("disconnected", code)
        def failed(self, error): note("failed", type(error).__name__)
        def closed(self): note("closed")

    class Sink:
        def request(self, scope): return Record(scope)
        websocket = request

    runtime.active.requests = Sink()
    runtime.active.flush = lambda timeout_s: note("flush")
    runtime.active.watch_loop = lambda: note("watched")
    if os.environ["HOOKS"]:
        from importlib.metadata import entry_points
        for name in os.environ["HOOKS"].split():
            module, _, hook = name.partition(":")
            getattr(__import__(module, fromlist=[hook]), hook)().instrument(skip_dep_check=True)
        # As configure() does:
        atexit.register(lambda: runtime.active.flush(5.0))
        endings.QUICK_S = 10.0  # that a busy machine may take for it
        endings.install(lambda full: note("signal"))

    async def talk(receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"] == "close":
                await send({"type": "websocket.close", "code": 4001})
                return
            await send({"type": "websocket.send", "text": message["text"]})

    async def raw(scope, receive, send):
        if scope["type"] == "lifespan":
            note("loaded")
            raise ValueError("no lifespan")
        if scope["type"] == "websocket":
            return await talk(receive, send)
        if scope["path"] == "/broken":
            raise ValueError("before the start")
        body = json.dumps(list(scope["client"] or ())).encode()
        if scope["path"] == "/same":
            body = b"hello"
        head = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body[:1], "more_body": True})
        if scope["path"] == "/torn":
            raise ValueError("after the start")
        await send({"type": "http.response.body", "body": body[1:]})

    async def living(scope, receive, send):
        if scope["type"] != "lifespan":
            return await raw(scope, receive, send)
        while True:
            kind = (await receive())["type"]
            note("loaded" if kind == "lifespan.startup" else "ended")
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
""")


class Served:
    def __init__(self, process, port, out):
        self.process = process
        self.port = port
        self._out = out
        self._read = 0

    @property
    def lines(self):
        """[pid, event, …] of all processes."""
        text = self._out.read_text() if self._out.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def pids(self, event):
        return [pid for pid, seen, *_ in self.lines if seen == event]

    def record(self):
        """The events of the one record made since the last call, once it is closed."""
        wait_until(lambda: "closed" in [e for _, e, *_ in self.lines[self._read :]], "the record")
        new = self.lines[self._read :]
        self._read += len(new)
        assert [e for _, e, *_ in new].count("asked") == 1, new
        asked, *events = (values[0] if len(values) == 1 else tuple(values) for _, *values in new)
        return asked, events

    def ask(self, path):
        """The raw answer, without the date."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return b"\r\n".join(l for l in answer.split(b"\r\n") if not l.lower().startswith(b"date:"))

    def await_workers(self, count):
        """Until every worker has the application, and one has answered."""
        wait_until(lambda: len(set(self.pids("loaded"))) >= count, "the workers", START_S)
        self.ask("/same")

    def end(self, signum):
        """Exit status after this signal."""
        self.process.send_signal(signum)
        return self.process.wait(STOP_S)


class ServerContract:
    hook: ClassVar[type[Hook]]
    also: ClassVar[tuple[type[Hook], ...]] = ()
    """Hooks without which its workers' end is not seen."""
    ready: ClassVar[str]
    """What its log says once for each worker that serves."""
    told: ClassVar[int] = 4999
    """Close code that the application is told where a client closes with 4999."""
    signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGINT)
    """Those that it ends on."""

    @classmethod
    def command(cls, port: int, workers: int, app: str) -> list[str]:
        raise NotImplementedError

    @classmethod
    @contextmanager
    def serving(cls, directory: Path, *, workers=1, app="raw", hooked=True):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "program.py").write_text(PROGRAM)
        out, log = directory / "out", directory / "log"
        held = hold_port()
        port = held.getsockname()[1]
        hooks = [f"{h.__module__}:{h.__name__}" for h in (cls.hook, *cls.also)]
        variables = environment(OUT=str(out), HOOKS=" ".join(hooks) if hooked else "")
        variables["PYTHONPATH"] += os.pathsep + str(directory)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", *cls.command(port, workers, f"program:{app}")],
                cwd=directory,
                env=variables,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # a group of its own, with its workers
            )
        served = Served(process, port, out)

        def is_ready():
            assert process.poll() is None, log.read_text()
            return log.read_text().count(cls.ready) >= workers

        try:
            wait_until(is_ready, f"{cls.hook.library}: {log}", START_S)
            served._read = len(served.lines)
            yield served
        finally:
            try:
                if process.poll() is None:
                    served.end(signal.SIGTERM)
            finally:  # no worker outlives a parent that had to be killed
                held.close()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory):
        with cls.serving(tmp_path_factory.mktemp("hooked")) as served:
            yield served

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, tmp_path_factory):
        with cls.serving(tmp_path_factory.mktemp("plain"), hooked=False) as served:
            yield served

    def test_one_record_for_one_request(self, server):
        assert server.ask("/same").endswith(b"hello")
        asked, events = server.record()
        assert asked[:3] == ("asked", "http", "/same")
        assert events == [("started", 200), "completed", "closed"]

    def test_the_record_sees_the_peer(self, server):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.connect()
        host, port = connection.sock.getsockname()
        connection.request("GET", "/")
        seen = json.loads(connection.getresponse().read())
        connection.close()
        assert seen in ([host, port], [host, str(port)])  # granian writes it as text
        assert server.record()[0][3] == seen

    @pytest.mark.parametrize(
        ("path", "events"),
        [
            ("/same", [("started", 200), "completed", "closed"]),
            ("/broken", [("failed", "ValueError"), "closed"]),
            ("/torn", [("started", 200), ("failed", "ValueError"), "closed"]),
        ],
    )
    def test_the_answer_is_the_same_as_without_us(self, server, plain, path, events):
        assert server.ask(path) == plain.ask(path)
        assert server.record()[1] == events
        assert {e for _, e, *_ in plain.lines} == {"loaded"}

    @pytest.mark.parametrize("close", ["client", "server"])
    def test_websocket(self, server, close):
        with connect(f"ws://127.0.0.1:{server.port}/talk") as client:
            client.send("hi")
            assert client.recv(timeout=10) == "hi"
            if close == "client":
                client.close(4999)
            else:
                client.send("close")
                with pytest.raises(Exception) as ended:
                    client.recv(timeout=10)
                assert ended.value.rcvd.code == 4001
        asked, events = server.record()
        assert asked[:3] == ("asked", "websocket", "/talk")
        code = self.told if close == "client" else 4001
        assert events == ["accepted", ("disconnected", code), "closed"], events

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_each_worker_flushes_at_its_end(self, tmp_path, signum, workers):
        """Without a lifespan. The exit status is the server's own."""
        if signum not in self.signals:
            pytest.skip(f"{self.hook.library} does not end on it, with or without us")
        status = self.status_without_us(tmp_path / "plain", signum, workers)
        with self.serving(tmp_path / "hooked", workers=workers) as served:
            served.await_workers(workers)
            loaded = set(served.pids("loaded"))
            assert served.pids("flush") == []
            assert served.end(signum) == status == 0
        assert len(loaded) == workers
        # A parent that has loaded the application too may flush as well. hypercorn terminates
        # the workers that still end when the first one has.
        flushed = [pid for pid in served.pids("flush") if pid in loaded]
        assert len(flushed) == len(set(flushed))
        assert {*flushed, *served.pids("signal")} & loaded == loaded
        assert sorted(served.pids("watched")) == sorted(loaded)

    def status_without_us(self, directory, signum, workers):
        """granian now and then does not end on a signal while it starts; then another is asked."""
        for attempt in range(3):
            plain = self.serving(directory / str(attempt), workers=workers, hooked=False)
            with contextlib.suppress(subprocess.TimeoutExpired), plain as served:
                served.await_workers(workers)
                return served.end(signum)
        raise AssertionError("without us it does not end at all")

    def test_with_a_lifespan_the_flush_follows_the_applications_end(self, tmp_path):
        with self.serving(tmp_path, app="living") as served:
            assert served.end(signal.SIGTERM) == 0
        (pid,) = served.pids("loaded")
        events = [event for seen, event, *_ in served.lines if seen == pid]
        assert events[:4] == ["watched", "loaded", "ended", "flush"]
        assert set(events[4:]) <= {"flush", "signal"}

    def test_taken_out_by_identity(self):
        hook = self.hook()
        places = [owner_and_name(patch) for patch in hook.patches]
        before = [vars(owner)[name] for owner, name in places]
        hook.instrument(skip_dep_check=True)
        hooked = [vars(owner)[name] for owner, name in places]
        assert all(a is not b for a, b in zip(before, hooked, strict=True))
        hook.uninstrument()
        assert all(vars(o)[n] is b for (o, n), b in zip(places, before, strict=True))
