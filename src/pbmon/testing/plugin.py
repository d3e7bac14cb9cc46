"""The pytest plugin: a capture as a fixture, and budgets as a marker.

Loaded at the start of every pytest run where pbmon is installed, so it imports the rest at its
first use only.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pbmon.testing.capturing import Capture

MARKER = "budget"
_FIXTURE = "pbmon_capture"
_OPTION = "--pbmon-budgets"
_USAGE = (
    'budget("/route", method=None, max=None, p95=None, p99=None, availability=None, queries=None, '
    "warmup=0): the requests of the test must keep these limits, or the configured budgets "
    "(pbmon); queries: at most so many statements in each of them"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("pbmon").addoption(
        _OPTION,
        metavar="FILE",
        help="write the requests of all tests with the marker budget to FILE, for "
        "`pbmon budget check FILE`",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _USAGE)
    path = _run_file(config)
    if path is not None and not hasattr(config, "workerinput"):  # but in a worker of pytest-xdist
        try:
            path.write_bytes(b"")
        except OSError as error:
            raise pytest.UsageError(f"{_OPTION}: {path}: {error.strerror}") from None


def _run_file(config: pytest.Config) -> Path | None:
    name = config.getoption(_OPTION, default=None)
    return Path(config.invocation_params.dir, name) if name else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with the marker has the fixture too, before its others: a connection that they make is
    to be seen."""
    for item in items:
        if item.get_closest_marker(MARKER) is not None:
            names = getattr(item, "fixturenames", None)
            if names is None:
                continue  # told when it runs
            item.fixturenames = [_FIXTURE, *(n for n in names if n != _FIXTURE)]  # type: ignore[attr-defined]


@pytest.fixture
def pbmon_capture(request: pytest.FixtureRequest) -> Iterator[Capture]:
    """What pbmon makes during the test: `capture()` for the length of a test, on the machine's
    clock where the test has the marker `budget`."""
    from pbmon.testing.capturing import capture

    if request.node.get_closest_marker(MARKER) is None:
        with capture() as seen:
            yield seen
        return
    from pbmon.runtime import active

    # What the application has configured at its import is no setting of a capture.
    own: dict[str, Any] = {"budgets": active.settings.budgets} if active.configured else {}
    with capture(clock="system", **own) as seen:
        yield seen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Judge the requests of the test itself, not of its fixtures, once it has passed."""
    if item.get_closest_marker(MARKER) is None:
        return (yield)
    from pbmon.testing.capturing import Capture
    from pbmon.testing.promises import PromiseError, broken, promises

    seen = getattr(item, "funcargs", {}).get(_FIXTURE)
    if not isinstance(seen, Capture):
        pytest.fail("the marker budget is for what has fixtures: test functions", pytrace=False)
    try:
        wanted, wrong = promises(item.iter_markers(MARKER)), ""
    except PromiseError as error:
        wanted, wrong = [], str(error)
    if wrong:
        pytest.fail(f"marker budget: {wrong}", pytrace=False)
    before = len(seen.requests)
    result = yield
    from pbmon.runtime import active

    requests = seen.requests[before:]
    _write(item, requests)
    problems = [p for each in wanted for p in broken(each, requests, active.settings.budgets)]
    if problems:
        pytest.fail("\n  ".join([f"over budget: {problems[0]}", *problems[1:]]), pytrace=False)
    return result


def _write(item: pytest.Item, requests: list[Any]) -> None:
    path = _run_file(item.config)
    if path is None:
        return
    from pbmon.gate import runs

    lines = "".join(runs.encode(each.as_request(item.nodeid)) for each in requests)
    with path.open("ab", buffering=0) as file:  # in one write: other workers add to it as well
        file.write(lines.encode("utf-8", "replace"))
