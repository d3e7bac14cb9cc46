"""Pytest fixtures for the real servers, each started once per session and only if asked for.

What a machine lacks is skipped with the reason and the remedy. PBMON_TEST_REQUIRE turns such a
skip into a failure: `all`, or a comma list of names (`collector,prometheus,alertmanager,jaeger,
postgres`).
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from tests.stack.programs import MissingProgram
from tests.stack.servers import (
    Alertmanager,
    Collector,
    Config,
    Jaeger,
    Postgres,
    Prometheus,
    Server,
)

REQUIRE_VARIABLE = "PBMON_TEST_REQUIRE"

AnyServer = TypeVar("AnyServer", bound=Server)
CollectorFactory = Callable[..., Collector]


def missing(name: str, reason: str) -> NoReturn:
    """Skip the test because `name` is not to be had here, or fail it where it is required."""
    required = {word.strip() for word in os.environ.get(REQUIRE_VARIABLE, "").split(",")}
    if "all" in required or name in required:
        pytest.fail(f"{reason} ({REQUIRE_VARIABLE} requires {name})", pytrace=False)
    pytest.skip(reason)


def started(server: AnyServer) -> AnyServer:
    """Start a server, or skip if its program is missing."""
    try:
        return server.start()
    except MissingProgram as absent:
        missing(absent.name, absent.reason)


@pytest.fixture(scope="session")
def stack_prometheus() -> Iterator[Prometheus]:
    """One Prometheus for the session: tell your series apart by `service.name`."""
    with started(Prometheus()) as prometheus:
        yield prometheus


@pytest.fixture(scope="session")
def stack_jaeger() -> Iterator[Jaeger]:
    """One Jaeger for the session: tell your traces apart by `service.name`."""
    with started(Jaeger()) as jaeger:
        yield jaeger


@pytest.fixture(scope="session")
def stack_postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the session: make a database or schema of your own in it."""
    with started(Postgres()) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def stack_collector() -> Iterator[CollectorFactory]:
    """`stack_collector(config, env=None)` starts a Collector; it ends with the session.

    End it earlier with `with stack_collector(...) as collector:` or `collector.close()`.
    """
    with ExitStack() as running:

        def start(
            config: Config | Sequence[Config], env: Mapping[str, str] | None = None
        ) -> Collector:
            return running.enter_context(started(Collector(config, env)))

        yield start


@pytest.fixture(scope="session")
def stack_alertmanager() -> Iterator[Callable[[Path], Alertmanager]]:
    """`stack_alertmanager(config)` starts an Alertmanager; it ends with the session."""
    with ExitStack() as running:
        yield lambda config: running.enter_context(started(Alertmanager(config)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Add the end of the servers' logs to the report of a failed test that uses them."""
    report = yield
    names = getattr(item, "fixturenames", ())
    if report.failed and any(name.startswith("stack_") for name in names):
        report.sections.extend(
            (f"log of {server.name}", server.log_tail()) for server in Server.running
        )
    return report


@pytest.fixture
def volume() -> Iterator[Callable[[int], Path]]:
    """Makes small file systems: volume(bytes) → directory."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        point = Path("/tmp") / f"pbmon-volume-{uuid.uuid4().hex[:8]}"
        point.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", point],
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            point.rmdir()
            missing("mount", "no file system can be mounted here")
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", "-l", point], check=True)
        point.rmdir()
