"""Fresh Python processes, for what can be tried only once in one: global providers, imports."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests import state

TIMEOUT_S = 60


def environment(**variables):
    """This process's environment without any setting of pbmon or OpenTelemetry, a state directory
    of its own, and these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PBMON_", "OTEL_"))}
    kept["PYTHONPATH"] = str(Path(__file__).parents[1])  # for `tests.telemetry.drive`
    kept[state.VARIABLE] = state.fresh()
    return kept | {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"} | variables


def run(*command, cwd=None, **variables):
    """A finished process; cwd: a directory without settings files."""
    return subprocess.run(
        command,
        env=environment(**variables),
        cwd=cwd or Path(sys.prefix),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def python(code, *, cwd=None, **variables):
    """What the code printed; fails if it exits with anything but 0."""
    done = run(sys.executable, "-c", textwrap.dedent(code), cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    return done


def launched(code, *, cwd=None, **variables):
    """The same under opentelemetry-instrument."""
    launcher = Path(sys.executable).with_name("opentelemetry-instrument")
    done = run(launcher, sys.executable, "-c", textwrap.dedent(code), cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    return done


def installed(directory, code, entry_points):
    """Variables for a process that finds a distribution `plugin` in the directory: one module of
    this code, and these entry points."""
    (directory / "plugin.py").write_text(textwrap.dedent(code), encoding="utf-8")
    described = directory / "plugin-1.0.dist-info"
    described.mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n"
    (described / "METADATA").write_text(metadata, encoding="utf-8")
    (described / "entry_points.txt").write_text(textwrap.dedent(entry_points), encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join((str(directory), str(Path(__file__).parents[1])))}
