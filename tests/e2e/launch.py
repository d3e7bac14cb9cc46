"""Start an application under the launcher in a real uvicorn, and find its port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import state
from tests.stack.process import HOST, wait_until

ROOT = Path(__file__).parents[2]
START_S = 60.0
STOP_S = 30.0


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def log(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port()[1]}"

    def _port(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.log
        return re.search(r"Uvicorn running on http://[\d.]+:(\d+)", self.log)

    def wait(self) -> None:
        wait_until(lambda: self._port() is not None, "uvicorn", START_S)

    def stop(self) -> int:
        """SIGTERM, as a deploy sends it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


@contextmanager
def launched(
    app: str,
    output: Path,
    environment: Mapping[str, str],
    *,
    launcher: bool = True,
    options: Sequence[str] = (),
) -> Iterator[Running]:
    """`opentelemetry-instrument uvicorn app`, with no OTEL_ or PBMON_ variable but those given and
    a fresh state directory unless they name one. options: of uvicorn."""
    scripts = Path(sys.executable).parent  # the launcher looks its command up in the PATH
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PBMON_"))}
    inherited[state.VARIABLE] = state.fresh()
    inherited["PATH"] = f"{scripts}{os.pathsep}{inherited['PATH']}"
    command = [str(scripts / "opentelemetry-instrument")] if launcher else []
    command += [str(scripts / "uvicorn"), app, "--host", HOST, "--port", "0", *options]
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, **environment},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        running = Running(process, output)
        try:
            running.wait()
            yield running
        finally:
            running.stop()
