"""One experiment's sink, application and books: start, load, break, restart, settle, compare."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import load
from tests.faults.load import Generator, Load
from tests.faults.sink import Accepted, Sink
from tests.stack.process import HOST, children, clean_environment, hold_port, wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parents[2]
APP = "tests.faults.app:app"
START_S = 60.0
STOP_S = 12.0
# Of requests: by the stable conventions, and by those that stock instrumentation defaults to.
HISTOGRAMS = ("http.server.request.duration", "http.server.duration")
EXCLUDED = "/ready,/flush,/memory"


def _uvicorn(port: int) -> list[str]:
    quiet = ["--log-level", "critical", "--no-access-log"]
    return ["uvicorn", APP, "--host", HOST, "--port", str(port), *quiet]


def _gunicorn(port: int) -> list[str]:
    return ["gunicorn", "-k", "asgi", "-w", "2", "-b", f"{HOST}:{port}", "--no-control-socket", APP]


SERVERS: dict[str, Callable[[int], list[str]]] = {
    "uvicorn": _uvicorn,
    "uvicorn, 2 workers": lambda port: [*_uvicorn(port), "--workers", "2"],
    "uvicorn, h11": lambda port: [*_uvicorn(port), "--http", "h11"],
    "gunicorn": _gunicorn,
    "gunicorn --preload": lambda port: [*_gunicorn(port), "--preload"],
    "granian": lambda port: [
        "granian", "--interface", "asgi", "--host", HOST, "--port", str(port),
        "--log-level", "critical", APP,
    ],
    "hypercorn": lambda port: ["hypercorn", "-b", f"{HOST}:{port}", "--log-level", "critical", APP],
}  # fmt: skip


class App:
    """A running application. Its process is stopped by its own handle."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    def get(self, path: str) -> str:
        return load.get(self.port, path)

    def memory(self) -> int:
        """Anonymous bytes."""
        return int(self.get("/memory"))

    def children(self, count: int) -> list[int]:
        """Process ids of its workers, once there are as many."""
        return children(self.process.pid, count)

    def terminate(self) -> float:
        """SIGTERM, as a deploy sends it; seconds to the exit."""
        start_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        return time.monotonic() - start_s

    def kill(self) -> None:
        """SIGKILL to the process and what it started."""
        _kill(self.process)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return self.get("/ready") == "ready"
        except (OSError, http.client.HTTPException):
            return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # its group outlives it while a worker does
    except ProcessLookupError:
        pass
    process.wait()


class Lab:
    """A sink, a state directory that outlives restarts, and everything that was sent.

    stack: pbmon, upstream or none. has_clock: the application's wall clock can be stepped.
    """

    def __init__(self, stack: str, server: str = "uvicorn", *, has_clock: bool = False) -> None:
        self.stack = stack
        self.server = server
        self.has_clock = has_clock
        self.sink = Sink(in_order=has_clock)
        self.home = Path(tempfile.mkdtemp(prefix="faults-"))
        self.sent = Load()
        self.others = 0
        """Observed requests that carry no number."""
        self.rate = 100.0
        self._truth = self.home / "truth"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._held: list[socket.socket] = []
        self._next = 0

    def __enter__(self) -> Self:
        self.sink.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            _kill(process)
        for held in self._held:
            held.close()
        self.sink.__exit__()
        shutil.rmtree(self.home, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's but what a program needs to run."""
        environment = clean_environment()
        scripts = Path(sys.executable).parent  # the launcher looks its command up in the PATH
        environment |= {
            "PATH": f"{scripts}{os.pathsep}{environment['PATH']}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAULTS_STACK": self.stack,
            "FAULTS_TRUTH": str(self._truth),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.sink.url,
            "OTEL_SERVICE_NAME": "faults",
            "OTEL_PYTHON_ASGI_EXCLUDED_URLS": EXCLUDED,
        }
        if self.stack == "pbmon":
            environment |= {"PBMON_LOGS": "true", "PBMON_STATE_DIR": str(self.home / "state")}
        return environment

    def spawn(self, command: list[str], **variables: str) -> subprocess.Popen[bytes]:
        """Run a program under the stack; its own process group, its output in `log`."""
        launcher = ["opentelemetry-instrument"] if self.stack == "pbmon" else []
        environment = self.environment() | variables
        if self.has_clock:
            launcher = []
            environment["PYTHONPATH"] += f"{os.pathsep}{self._write_clock()}"
        # Popen looks a program up in the caller's PATH, not in that of the child.
        found = shutil.which((launcher + command)[0], path=environment["PATH"])
        assert found is not None, command
        with open(self.home / "log", "ab") as log:
            process = subprocess.Popen(
                [found, *(launcher + command)[1:]],
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _write_clock(self) -> Path:
        """Do what the launcher does in a new process, after the clock is replaced."""
        site = self.home / "site"
        site.mkdir(exist_ok=True)
        lines = ["from tests.faults import clock", "clock.install()"]
        if self.stack == "pbmon":
            lines += [
                "from opentelemetry.instrumentation.auto_instrumentation import initialize",
                "initialize()",
            ]
        (site / "sitecustomize.py").write_text("\n".join(lines))
        return site

    def start(self, **variables: str) -> App:
        """The application under its server, ready to answer; also again after its end."""
        held = hold_port()  # every server sets SO_REUSEADDR
        self._held.append(held)
        port = int(held.getsockname()[1])
        process = self.spawn(SERVERS[self.server](port), **variables)
        app = App(process, port, self.home / "log")
        try:
            wait_until(app.is_ready, self.server, START_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{app.log()}") from None
        return app

    def complaints(self) -> list[str]:
        """What pbmon wrote about itself, each line once."""
        text = (self.home / "log").read_text(errors="replace")
        return list(dict.fromkeys(re.findall(r"^pbmon: .*", text, re.MULTILINE)))

    def load(self, app: App, seconds: float, rate: float | None = None) -> Load:
        """Numbered requests; as many as belong to the time, however long they take."""
        return self.ended(self.loading(app, seconds, rate).wait())

    def loading(self, app: App, seconds: float, rate: float | None = None) -> Generator:
        """The same, under way; hand what it comes to to `ended`."""
        rate = rate or self.rate
        count = round(seconds * rate)
        first, self._next = self._next, self._next + count
        return Generator(app.port, first, count, rate).start()

    def ended(self, one: Load) -> Load:
        self.sent += one
        return one

    def truth(self) -> list[int]:
        """Numbers of the requests that were counted."""
        text = self._truth.read_text() if self._truth.exists() else ""
        return [int(line) for line in text.split()]

    @property
    def accepted(self) -> Accepted:
        return self.sink.accepted

    def missing_spans(self) -> int:
        wanted = {(n, kind) for n in self.sent.answered for kind in ("server", "child")}
        wanted |= {(n, "child") for n in self._unasked()}
        with self.sink.lock:
            return len(wanted - self.accepted.spans)

    def missing_logs(self) -> int:
        with self.sink.lock:
            return len((self.sent.answered | self._unasked()) - self.accepted.logs)

    def missing_counts(self) -> float:
        """Of the application's counter and of the requests' histogram, together."""
        answered = len(self.sent.answered) + self.others
        observed = sum(map(self.total, HISTOGRAMS))
        return max(0.0, len(self.truth()) - self.total("test.work")) + max(0.0, answered - observed)

    def counted_twice(self) -> float:
        """Counts beyond everything that may have been counted."""
        possible = self.sent.sent | set(self.truth())
        return max(0.0, self.total("test.work") - len(possible))

    def _unasked(self) -> set[int]:
        """Work that the application did by itself."""
        return set(self.truth()) - self.sent.sent

    def total(self, name: str, **attributes: str) -> float:
        with self.sink.lock:
            return self.accepted.total(name, **attributes)

    def by_attribute(self, name: str, *keys: str) -> dict[tuple[object, ...], float]:
        with self.sink.lock:
            return self.accepted.by_attribute(name, *keys)

    @staticmethod
    def wait(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
        wait_until(condition, what, timeout_s)

    def settle(
        self, app: App | None, patience_s: float, spare: float = 0.0, spare_counts: float = 0.0
    ) -> float:
        """Wait for what is under way: until nothing is missing, or nothing came for patience_s.

        spare, spare_counts: missing records of each kind, and counts, that needn't be waited for.

        Spans and logs come by themselves; for the metrics, whose interval may be a minute, the
        application, if it still runs, is asked to flush. Returns how long the spans and logs took.
        """
        start_s = time.monotonic()
        self._wait((self.missing_spans, self.missing_logs), patience_s, spare)
        took_s = time.monotonic() - start_s
        if app is not None and self.missing_counts() > spare_counts:
            app.get("/flush")
        self._wait((self.missing_counts,), min(patience_s, 5.0), spare_counts)
        return took_s

    @staticmethod
    def _wait(missing: Sequence[Callable[[], float]], patience_s: float, spare: float) -> None:
        least = [each() for each in missing]
        progress_s = time.monotonic()
        while max(least) > spare and time.monotonic() - progress_s < patience_s:
            time.sleep(0.05)
            now = [each() for each in missing]
            if sum(now) < sum(least):
                least, progress_s = now, time.monotonic()
