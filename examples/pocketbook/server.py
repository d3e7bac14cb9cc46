"""The app in a process of its own: uvicorn under the launcher, exporting to our receiver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from typing_extensions import Self

APP = "examples.pocketbook.app:app"
CONFIG = Path(__file__).with_name("pbmon.toml")
ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# With port 0 the system picks a free one and uvicorn says which: nobody can take it in between.
_RUNNING = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
_LOOPBACK = "127.0.0.1,localhost"


class StartError(RuntimeError):
    """The app did not start or did not stop; the message carries the end of its log."""


def environment(
    otlp_endpoint: str,
    database_url: str,
    state_directory: Path,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The app's variables. The caller's OTEL_* and PBMON_* would change what is measured, so
    only the resource's attributes are taken over; their endpoint is the Forwarder's business."""
    kept = {
        name: value for name, value in environ.items() if not name.startswith(("OTEL_", "PBMON_"))
    }
    if "OTEL_RESOURCE_ATTRIBUTES" in environ:
        kept["OTEL_RESOURCE_ATTRIBUTES"] = environ["OTEL_RESOURCE_ATTRIBUTES"]
    no_proxy = ",".join(filter(None, (environ.get("NO_PROXY"), _LOOPBACK)))
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": database_url,
        "POCKETBOOK_DEMO": "1",
        "PBMON_CONFIG": str(CONFIG),
        "PBMON_STATE_DIR": str(state_directory),
        "OTEL_SERVICE_NAME": "pocketbook",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }


def run_module(env: Mapping[str, str], *arguments: str) -> str:
    """`python -m …` beside the app, with its variables; what it printed. Raises StartError."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise StartError(f"{' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


class Server:
    """`with Server(env) as server:` runs the app and stops it at the end."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._log: deque[str] = deque(maxlen=40)
        self._known = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        command = ["opentelemetry-instrument", "uvicorn", APP, "--host", "127.0.0.1"]
        command += ["--port", "0", "--no-access-log", "--timeout-graceful-shutdown", "10"]
        launcher = Path(sys.executable).with_name(command[0])
        if launcher.exists():
            command[0] = str(launcher)
        self._process = self._spawn(command)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._await_readiness()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self, command: list[str]) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is ours to handle: the app is stopped in order
            )
        except FileNotFoundError:
            raise StartError(f"{command[0]} is not installed; `make demo` installs it") from None

    def stop(self) -> None:
        """SIGTERM, as a deployment does; pbmon flushes in it. Twice is a no-op.

        Raises StartError if the app had to be killed.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise StartError(f"the app did not stop within {STOP_TIMEOUT_S:.0f} s") from None
        finally:
            self._reader.join()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.append(line.rstrip())
            if not self.url and (match := _RUNNING.search(line)):
                self.url = match[1]
                self._known.set()
        self._known.set()  # the process has ended

    def _await_readiness(self) -> None:
        self._known.wait(START_TIMEOUT_S)
        if not self.url:
            raise StartError("the app did not start; the end of its log:\n" + self.log_tail())
        # uvicorn says so after start-up, when the tables are made; this asks the database, too.
        answer = httpx.get(f"{self.url}/healthz", timeout=START_TIMEOUT_S, trust_env=False)
        if answer.status_code != 200:
            raise StartError(f"/healthz answers {answer.status_code}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return "\n".join(self._log)
