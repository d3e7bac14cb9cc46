"""A pytest plugin: keep the tests that need no real server and don't depend on the Python version.

`.ci/run` uses it for the other Pythons and the other OpenTelemetry; the main run has everything.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The stack, what is held against upstream, the tools that make files, and packaging itself:
# the same on every Python, or, as upstream's psycopg2, without a release for every OpenTelemetry.
# The fault experiments take longest; what in them depends on Python, its ends and forks, is tried
# by the tests of the hooks, the endings and the delivery.
LEFT_OUT = (
    "stack", "e2e", "differential", "collector_config", "grafana", "packaging", "examples",
    "faults", "benchmarks",
)  # fmt: skip


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    tests = ROOT / "tests"
    if collection_path.is_relative_to(tests):
        parts = collection_path.relative_to(tests).parts
        return True if parts and parts[0] in LEFT_OUT else None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = [item for item in items if _takes_a_server(item)]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not _takes_a_server(item)]


def _takes_a_server(item: pytest.Item) -> bool:
    """Or so long that it is for the main run alone."""
    return any(item.get_closest_marker(name) is not None for name in ("server", "faults")) or any(
        name.startswith("stack_") for name in getattr(item, "fixturenames", ())
    )
