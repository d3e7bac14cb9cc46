"""The wheel alone: no source tree, no editable installation."""

from __future__ import annotations

import json
from pathlib import Path

from tests.packaging.conftest import ROOT

ENTRY_POINTS = {
    "console_scripts": {"pbmon"},
    "opentelemetry_configurator": {"pbmon"},
    "opentelemetry_distro": {"pbmon"},
    "opentelemetry_instrumentor": {
        "apscheduler", "django", "fastapi", "granian", "gunicorn", "hypercorn", "multiprocessing",
        "psycopg2", "sqlite3", "starlette", "unhandled", "uvicorn",
    },
    "opentelemetry_pre_instrument": {"pbmon"},
    "pytest11": {"pbmon"},
}  # fmt: skip
NOTHING_EXPORTED = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}


def test_pbmon_comes_from_the_wheel(installation):
    imported = Path(installation.evaluate("import pbmon; print(pbmon.__file__)"))
    assert imported.is_relative_to(installation.directory)
    path = installation.evaluate("import sys; print('\\n'.join(sys.path))").splitlines()
    assert str(ROOT) not in path
    assert str(ROOT / "src") not in path


def test_dashboards_are_exported(installation, tmp_path):
    target = tmp_path / "dashboards"
    done = installation.run("pbmon", "dashboards", "export", str(target))
    assert (done.returncode, done.stderr) == (0, "")
    committed = ROOT / "grafana" / "dashboards"
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in committed.glob("*.json")
    }


def test_doctor_runs(installation):
    done = installation.run("pbmon", "doctor", **NOTHING_EXPORTED)
    assert (done.returncode, done.stderr) == (0, "")
    version = installation.evaluate("import pbmon; print(pbmon.__version__)")
    assert done.stdout.startswith(f"pbmon {version}, Python ")
    assert "✗" not in done.stdout


def test_every_entry_point_is_there_and_loads(installation):
    code = """
import json
from importlib.metadata import distribution
found = {}
for entry in distribution("pbmon").entry_points:
    entry.load()
    found.setdefault(entry.group, []).append(entry.name)
print(json.dumps(found))
"""
    found = json.loads(installation.evaluate(code))
    assert {group: set(names) for group, names in found.items()} == ENTRY_POINTS


def test_pbmon_is_found_once(installation):
    code = """
from importlib.metadata import entry_points
print([e.value for e in entry_points(group="opentelemetry_distro") if e.name == "pbmon"])
"""
    assert installation.evaluate(code) == "['pbmon.distro:Distro']"


def test_import_is_light(installation):
    """An application pays for what it uses: `import pbmon` loads none of the libraries."""
    code = "import sys, pbmon; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(installation.evaluate(code).split())
    assert "pbmon" in loaded
    assert not loaded & {"opentelemetry", "sqlalchemy", "alembic", "wrapt", "sqlglot", "iso4217"}


def test_help_lists_every_command(installation):
    done = installation.run("pbmon", "--help")
    assert done.returncode == 0
    assert "dashboards" in done.stdout
    assert "doctor" in done.stdout
