"""The wheel's content and metadata."""

from __future__ import annotations

import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.conftest import ROOT

DEPENDENCIES = {
    "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-semantic-conventions",
    "opentelemetry-instrumentation", "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-proto-common", "opentelemetry-proto", "requests", "wrapt",
    "sqlglot", "sqlalchemy", "alembic", "iso4217", "currencyconverter", "tomli",
}  # fmt: skip
EXTRAS = {
    "postgres": {"psycopg2-binary"},
    "grpc": {"opentelemetry-exporter-otlp-proto-grpc"},
    "alerts": {"apprise"},
    "scheduler": {"apscheduler"},
    "openfeature": {"openfeature-sdk"},
    "sentry": {"sentry-sdk"},
    "report": {"jinja2", "matplotlib"},
    "upstream": {
        "opentelemetry-instrumentation-asgi",
        "opentelemetry-instrumentation-psycopg2",
    },
}


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return Parser().parsestr(_text(wheel, "METADATA"))


def _text(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(found).decode()


def test_every_module_is_in(names):
    source = ROOT / "src"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert len(modules) > 20
    assert modules <= names


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("grafana/dashboards", "*.json"),
        ("grafana/provisioning", "**/*.y*ml"),
        ("collector-config", "**/*.y*ml"),
        ("docs/runbooks", "*.md"),
    ],
)
def test_assets_are_in(names, folder, pattern):
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob(pattern)]
    assert files
    assert {f"pbmon/_assets/{file}" for file in files} <= names


def test_the_page_of_reports_is_in(names):
    assert "pbmon/reports/page.html.j2" in names


def test_types_and_licence_are_in(names):
    assert "pbmon/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_nothing_else_is_in(names):
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"pbmon"}
    assets = {name.split("/")[2] for name in names if name.startswith("pbmon/_assets/")}
    assert assets == {"grafana", "collector-config", "docs"}
    carried = {Path(name).suffix for name in names if name.startswith("pbmon/_assets/")}
    assert carried <= {".json", ".yaml", ".yml", ".md", ".j2"}  # no code, no caches
    assert not [name for name in names if "test_" in name or "__pycache__" in name]


def test_python_versions(metadata):
    assert metadata["Requires-Python"] == ">=3.10"


def test_licence(metadata):
    assert metadata["License-Expression"] == "Apache-2.0"


def test_dependencies_and_extras(metadata):
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    assert {r.name for r in required if "extra" not in str(r.marker)} == DEPENDENCIES
    assert set(metadata.get_all("Provides-Extra", [])) == set(EXTRAS)
    for extra, expected in EXTRAS.items():
        of_extra = {
            r.name
            for r in required
            if r.marker and "extra" in str(r.marker) and r.marker.evaluate({"extra": extra})
        }
        assert of_extra == expected, extra


def test_no_dependency_is_capped_but_one(metadata):
    """APScheduler 4 is another library; everything else may move on without us."""
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    capped = [r.name for r in required if any(s.operator != ">=" for s in r.specifier)]
    assert capped == ["apscheduler"]
