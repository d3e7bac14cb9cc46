"""What is missing skips with the remedy, or fails where it is required; logs reach reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.plugin import REQUIRE_VARIABLE, missing, started
from tests.stack.postgres import URL_VARIABLE
from tests.stack.programs import JAEGER, PROMETHEUS, MissingProgram, binary
from tests.stack.servers import Prometheus

ROOT = Path(__file__).resolve().parents[2]
FAILING = """\
from tests.stack.samples import NOWHERE, PIPELINE

def test_it(stack_collector):
    stack_collector(PIPELINE, NOWHERE)
    assert not "this was seen"
"""
ASKING = """\
from pathlib import Path
import pytest
from tests.stack import postgres

postgres.DEBIAN = Path("/nonexistent")

@pytest.mark.parametrize("name", ["prometheus", "jaeger", "postgres"])
def test_it(name, request):
    request.getfixturevalue(f"stack_{name}")
"""


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        *(("", "skip"), ("jaeger", "skip"), ("jaeger, postgres", "skip"), ("prometheusx", "skip")),
        *(("all", "fail"), ("prometheus", "fail"), ("jaeger, prometheus", "fail")),
    ],
)
def test_missing_goes_by_the_switch(
    value: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REQUIRE_VARIABLE, value)
    # Both are caught: a skip that escaped would skip this test instead of failing it.
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as caught:
        missing("prometheus", "it isn't here")
    assert caught.type is (pytest.skip.Exception if wanted == "skip" else pytest.fail.Exception)
    assert "it isn't here" in str(caught.value)
    assert ("requires prometheus" in str(caught.value)) == (wanted == "fail")


def test_an_unbuilt_program_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"prometheus 3\S+ is not built: run `make st"):
        started(Prometheus())


@pytest.mark.parametrize(("required", "outcome"), [("", "3 skipped"), ("all", "3 failed")])
def test_every_fixture_goes_by_the_switch(required: str, outcome: str, tmp_path: Path) -> None:
    """With nothing built and no PostgreSQL on the machine."""
    result = run_pytest(
        tmp_path,
        ASKING,
        XDG_CACHE_HOME=str(tmp_path / "empty"),
        PATH=str(tmp_path),
        **{REQUIRE_VARIABLE: required},
    )
    assert outcome in result
    assert f"prometheus {PROMETHEUS.version} is not built: run `make stack`" in result
    assert f"jaeger {JAEGER.version} is not built: run `make stack`" in result
    assert "no PostgreSQL server is installed: install PostgreSQL" in result


def test_a_failed_test_shows_the_servers_log(tmp_path: Path) -> None:
    try:
        binary("collector")
    except MissingProgram as absent:
        missing(absent.name, absent.reason)
    result = run_pytest(tmp_path, FAILING)
    assert "this was seen" in result
    assert "log of collector" in result
    assert "Everything is ready" in result


def run_pytest(directory: Path, text: str, **variables: str) -> str:
    """Run a test file on its own, with the plugin, and return what pytest said."""
    (directory / "test_it.py").write_text(text, encoding="utf-8")
    # Other plugins of this environment would cost a second.
    alone = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {**os.environ, **alone}
    for name in (REQUIRE_VARIABLE, URL_VARIABLE):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-p", "tests.stack.plugin", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "--rootdir", str(directory), "-c", os.devnull, "-rsE", "test_it.py"],
        cwd=directory,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.stdout
