"""The processes of a benchmark: a receiver, and one for each thing that is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

WITHOUT_TELEMETRY = {
    "OTEL_SERVICE_NAME": "bench", "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
}  # fmt: skip


def environment(**variables: str) -> dict[str, str]:
    """The caller's, without any setting of pbmon or OpenTelemetry, and these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PBMON_", "ANALYTICS_"))
    }
    return kept | variables


def run(module: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """A module's exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@contextmanager
def receiving(latency_s: float = 0.0) -> Iterator[str]:
    """The URL of a receiver in a process of its own. latency_s: it takes to answer."""
    command = [sys.executable, "-m", "benchmarks.sink", str(latency_s)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def take(sink: str) -> dict[str, Any]:
    """What a receiver got since it was last asked: spans, and the numbers of events."""
    with urllib.request.urlopen(sink) as answer:
        taken: dict[str, Any] = json.load(answer)
    return taken
