"""Where settings are written down: keywords, variables of the environment, a file.

They are read here and understood by `settings`: what comes out is text and tables, with the source
that a person is told of.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "PBMON_"
CONFIG_VARIABLE = "PBMON_CONFIG"
FILE = "pbmon.toml"
PROJECT_FILE = "pyproject.toml"

# Variables of the tests and of collector-config/, which an application may share a shell with.
# PBMON_PROMETHEUS_URL, which Grafana reads as well, is the setting.
_OTHERS = (
    "PBMON_TEST_", "PBMON_COLLECTOR_", "PBMON_TRACE_", "PBMON_TEMPO_",
    "PBMON_PROMETHEUS_OTLP_", "PBMON_LOGS_OTLP_",
)  # fmt: skip

Layer = dict[str, tuple[str, Any]]
"""Setting → source, raw value."""

Variables = Mapping[str, Sequence[str]]
"""Setting → the variables of the environment that may hold it."""

MAX_BYTES = 1 << 20
"""Of a file: parsing a longer one would take a running process' time and memory."""

OF_FILE = "file"
"""Source of a problem that is the file's own, and not one setting's in it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One unusable setting. str() is the line a person reads."""

    name: str
    source: str
    message: str

    def __str__(self) -> str:
        # Values and file contents are quoted in messages: none may break the line.
        return " ".join(f"pbmon: setting {self.name} ({self.source}): {self.message}".splitlines())


def defined(
    source: str, values: Mapping[str, Any], known: Iterable[str], problems: list[Problem]
) -> Layer:
    """The layer of a source that gives settings by their names."""
    layer: Layer = {}
    for name, value in values.items():
        if name in known:
            layer[name] = (source, value)
        else:
            problems.append(Problem(name, source, _unknown(name, known)))
    return layer


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    hint = f"did you mean {close[0]}?" if close else "see `pbmon doctor` for those there are."
    return f"there is no such setting; {hint} It is ignored"


def from_environment(
    environ: Mapping[str, str], variables: Variables, problems: list[Problem]
) -> list[Layer]:
    """One layer of the PBMON_ variables, then of the standard ones in their order."""
    own = {PREFIX + name.upper() for name in variables}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in own and not variable.startswith(_OTHERS):
            problems.append(Problem(variable, "environment", _unknown(variable, own)))
    layers: list[Layer] = [{} for _ in range(max(map(len, variables.values())))]
    for name, of_it in variables.items():
        for layer, variable in zip(layers, of_it, strict=False):
            if environ.get(variable, "").strip():  # set but empty is unset, as in OpenTelemetry
                layer[name] = (f"environment {variable}", environ[variable])
    return layers


# --- the file -----------------------------------------------------------------------------------


def candidates(environ: Mapping[str, str], directory: Path | None = None) -> list[Path]:
    """Where the file may be, the first that is there counts. directory: the working directory if
    left out."""
    wanted = environ.get(CONFIG_VARIABLE, "").strip()
    if wanted:
        return [Path(wanted) if directory is None else directory / wanted]
    base = directory or working_directory()
    return [base / FILE, base / PROJECT_FILE]


def from_file(
    environ: Mapping[str, str],
    directory: Path | None,
    known: Iterable[str],
    problems: list[Problem],
) -> Layer:
    for path in candidates(environ, directory):
        try:
            table = tomllib.loads(_text(path))
        except FileNotFoundError:
            if environ.get(CONFIG_VARIABLE, "").strip():
                problems.append(
                    Problem(CONFIG_VARIABLE, "environment", f"{path} does not exist; create it")
                )
            continue
        except (OSError, ValueError, RecursionError) as error:
            problems.append(Problem(str(path), OF_FILE, f"can't be read: {error}; it is ignored"))
            continue
        if path.name == PROJECT_FILE:
            tools = table.get("tool", {})
            if not isinstance(tools, dict) or "pbmon" not in tools:
                continue
            table = tools["pbmon"]
        if isinstance(table, dict):
            return defined(str(path), table, known, problems)
        problems.append(Problem(str(path), OF_FILE, "tool.pbmon must be a table; it is ignored"))
    return {}


def _text(path: Path) -> str:
    """Raises OSError, and ValueError for what can't be a file of settings."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES:,} bytes; keep the settings alone in it")
    return content.decode("utf-8")


def working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError:  # deleted under the process
        return Path()


Stamp = tuple[int, int, int]
"""Of a file as it is now: when it was written (ns), which one it is, how long."""


def stamp(path: Path) -> Stamp | None:
    """None where it can't be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
