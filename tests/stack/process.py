"""Run one real server for a test: free ports, readiness by condition, a clean stop.

Every server binds loopback only, gets a directory of its own and an environment without the
caller's variables, and is stopped by its own handle, never by name.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self

HOST = "127.0.0.1"
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02
START_ATTEMPTS = 5
TAIL_LINES = 30
# Below the range from which kernels take the source ports of outgoing connections: a port that
# was free a moment ago is then lost only to another server, hardly ever to a client.
PORTS = range(20_000, 32_000)


class ServerError(Exception):
    """A server didn't start, stop or answer; the message carries the end of its log."""


class Server:
    """A child process that serves on loopback. Subclasses say what to run and when it is ready.

    `start()` after `stop()` or `kill()` comes back on the same ports with the same data, as a
    restart does; `close()` (or leaving `with`) also removes the data.
    """

    name: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # Those that run now, for whoever reports a failed test.
    running: ClassVar[list[Server]] = []

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def command(self) -> list[str]:
        """Write what the server reads into `home` and return what to run."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether the started server itself, not another on its port, answers; asked until yes."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return clean_environment()

    def popen_options(self) -> dict[str, Any]:
        return {}

    @property
    def home(self) -> Path:
        """The server's own directory; it lives until `close()`."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix=f"pbmon-{self.name}-"))
        return self._home

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{self.name} doesn't run")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start and wait until it is ready; nothing happens if it runs already."""
        if self.is_running:
            return self
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """Ask it to end and wait. ServerError if it had to be killed, or had crashed before."""
        process = self._process
        if process is not None and process.poll():
            self._forget()
            raise ServerError(
                f"{self.name} ended by itself with status {process.returncode}\n{self.log_tail()}"
            )
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it as a crash does, by SIGKILL; ports and data stay for the next `start()`."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop it and remove its directory. May be called twice."""
        try:
            self.stop()
        finally:
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)
                self._home = None

    def log(self) -> str:
        """Everything it printed so far, over all its starts."""
        path = self.home / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def log_tail(self) -> str:
        lines = self.log().splitlines()[-TAIL_LINES:]
        return f"--- the end of {self.name}'s log ---\n" + "\n".join(lines)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._forget()  # it may have ended by itself
        restart = bool(self.ports)
        for attempt in range(1, START_ATTEMPTS + 1):
            if not restart:
                self.ports = dict(
                    zip(self.port_names, free_ports(len(self.port_names)), strict=True)
                )
            self._spawn()
            try:
                self._await_ready()
            except ServerError:
                # Somebody took a port between our look and the server's bind: try others.
                lost_race = not restart and not self.is_running and self._port_was_taken()
                if not lost_race or attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def _spawn(self) -> None:
        command = self.command()
        path = self.home / "log"
        with open(path, "ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self.popen_options(),
            )
        Server.running.append(self)

    def _await_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while process.poll() is None:
            if self.is_ready():
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} wasn't ready after {READY_TIMEOUT_S:.0f} s\n{self.log_tail()}"
                )
            time.sleep(POLL_S)
        self._forget()
        raise ServerError(
            f"{self.name} ended with status {process.returncode} before it was ready\n"
            f"{self.log_tail()}"
        )

    def _port_was_taken(self) -> bool:
        text = self.current_log().lower()
        return "address already in use" in text or "address in use" in text

    def current_log(self) -> str:
        """What it printed since its last start."""
        path = self.home / "log"
        if not path.exists():
            return ""
        with open(path, "rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        try:
            if process.poll() is None:
                process.send_signal(how)
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerError(
                f"{self.name} didn't stop within {STOP_TIMEOUT_S:.0f} s of {how.name} and was "
                f"killed\n{self.log_tail()}"
            ) from None
        finally:
            self._forget()

    def _forget(self) -> None:
        self._process = None
        if self in Server.running:
            Server.running.remove(self)


def hold_port() -> socket.socket:
    """A socket bound to loopback that doesn't listen: its port refuses connections, is nobody
    else's, and takes a server that sets SO_REUSEADDR."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, 0))
    return held


@cache
def unused_port() -> int:
    """A port at which nobody listens as long as this process lives."""
    held = hold_port()
    atexit.register(held.close)
    return int(held.getsockname()[1])


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens just now, all different."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                candidate.bind((HOST, random.choice(PORTS)))
            except OSError:
                candidate.close()
            else:
                held.append(candidate)
        return [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()


def clean_environment() -> dict[str, str]:
    """The caller's environment without what could steer a server (OTEL_*, PG*, proxies)."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Return as soon as `condition()` holds; AssertionError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)


def children(pid: int, count: int) -> list[int]:
    """Process ids of a process's children, once there are as many. The kernel's list is that of a
    moment, and may leave one out while another ends."""
    found: list[int] = []

    def are_there() -> bool:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        found[:] = map(int, text.split())
        return len(found) == count

    wait_until(are_there, f"{count} children of {pid}")
    return found


def run_tool(
    command: Sequence[str | Path], environment: dict[str, str] | None = None, **options: Any
) -> str:
    """Run a program to its end and return what it printed; ServerError if it failed."""
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [str(part) for part in command],
        env=clean_environment() if environment is None else environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **options,
    )
    if result.returncode != 0:
        name = Path(command[0]).name
        raise ServerError(f"{name} failed with status {result.returncode}\n{result.stdout}")
    return result.stdout
