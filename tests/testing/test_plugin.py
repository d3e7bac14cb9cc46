"""The pytest plugin, in pytest runs of their own: fixture, marker, run file, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

APP = """
    import asyncio, sqlite3
    import httpx, pytest, pbmon
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def items(request):
        if request.method == "DELETE":
            raise KeyError
        await asyncio.sleep(float(request.query_params.get("sleep", 0)))
        with CONNECT() as connection:
            for number in range(int(request.path_params["count"])):
                connection.execute("SELECT ? + 1", (number,)).fetchall()
        connection.close()
        return PlainTextResponse("ok")

    def CONNECT():
        return sqlite3.connect(":memory:")

    app = Starlette(routes=[Route("/items/{count}", items, methods=["GET", "DELETE"]),
                            Route("/other/{count}", items)])

    async def aget(*paths, method="GET"):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for path in paths:
                await client.request(method, path)

    def get(*paths, **options):
        asyncio.run(aget(*paths, **options))
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs tests with the app; options: of pytest."""
    monkeypatch.delenv("PBMON_STATE_DIR")
    monkeypatch.setenv("PYTHONWARNINGS", "error")

    def run(tests, *options, app=APP):
        pytester.makepyfile(shop=app, test_it="from shop import *\n" + tests)
        return pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--strict-markers", *options
        )

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- the fixture ---


def test_the_fixture_is_a_capture_for_each_test(run):
    run("""
def test_one(pbmon_capture):
    assert pbmon.track_feature("x", "viewed")
    assert pbmon_capture.metric("pbmon.feature.usage") == 1

def test_another(pbmon_capture):
    assert pbmon_capture.metric("pbmon.feature.usage") == 0
    pbmon_capture.clock.advance(1)

def test_without():
    assert pbmon.track_feature("x", "viewed") == pbmon.Refused("not_configured")
""").assert_outcomes(passed=3)


# --- the marker ---

KEPT = """
@pytest.mark.budget("/items/{count}", max="30s", p95="30s", availability=1, queries=3)
def test_all_of_it():
    get("/items/3", "/items/1", "/other/9")

@pytest.mark.budget(queries=2)
@pytest.mark.budget("/other/{count}", queries=1)
def test_two_markers():
    get("/items/2", "/other/1")

@pytest.mark.budget("/items/{count}", method="DELETE", max="30s")
def test_a_failure_has_no_time():
    with pytest.raises(AssertionError, match="no span is"):
        raise AssertionError("no span is")
    get("/items/0", method="DELETE")

@pytest.mark.budget(max="150ms", queries=1, warmup=1)
def test_without_the_first():
    get("/items/9?sleep=0.2", "/items/1")

@pytest.mark.budget
def test_configured_ones_if_any():
    get("/items/1")

@pytest.mark.budget
def test_nothing_at_all():
    pass

@pytest.mark.budget(p95="1us")
def test_one_request_is_no_share():
    get("/items/1")

@pytest.fixture
def prepared():
    get("/items/50")

@pytest.mark.budget(queries=1)
def test_not_what_fixtures_do(prepared, pbmon_capture):
    get("/items/1")
    assert len(pbmon_capture.requests) == 2

@pytest.mark.budget(queries=1)
class TestClass:
    def test_method(self):
        get("/items/1")

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.budget(queries=1)
async def test_in_a_loop(anyio_backend):
    await aget("/items/1")
"""
BROKEN = """
@pytest.mark.budget("/items/{count}", queries=2)
def test_queries():
    get("/items/3", "/other/9", "/items/1")

@pytest.mark.budget("/items/{count}", max="50ms")
def test_max():
    get("/items/0?sleep=0.1", "/items/0")

@pytest.mark.budget(p95="1us")
def test_p95():
    get("/items/0", "/other/0")

@pytest.mark.budget("/items/{count}", availability=1)
def test_availability():
    get("/items/0", method="DELETE")

@pytest.mark.budget("/items/{count}")
def test_no_budget():
    get("/items/0")

@pytest.mark.budget("/wrong", queries=1)
def test_no_request():
    get("/items/0")

@pytest.mark.budget(querys=1)
def test_no_such_limit():
    pass

@pytest.mark.budget(max="x")
def test_no_time():
    pass

@pytest.mark.budget(p95="3s", max="2s")
def test_no_order():
    pass

@pytest.mark.budget("/a", "/b")
def test_two_endpoints():
    pass

@pytest.mark.budget("a", queries=1)
def test_no_route():
    pass

@pytest.mark.budget(queries=-1)
def test_no_number():
    pass

@pytest.mark.budget(queries=0)
def test_fails_by_itself():
    get("/items/3")
    raise KeyError("its own")

@pytest.mark.budget(queries=1)
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_in_a_loop(anyio_backend):
    await aget("/items/2")

import unittest

class Test(unittest.TestCase):
    @pytest.mark.budget(queries=1)
    def test_of_unittest(self):
        get("/items/2")
"""
SAID = [
    "test_queries", "over budget: GET /items/{count}: 3 queries; 2 may be:", "3 × SELECT [?] + [?]",
    "test_max", "over budget: /items/{count}: max 50 ms: 1 of 2 requests took longer",
    "*the slowest: GET /items/{count} in 1* ms",
    "test_p95", "over budget: any known route: p95 1 µs: 2 of 2 requests took longer (100.00%, *",
    "test_availability", "over budget: /items/{count}: availability 1: 1 of 1 request failed",
    "test_no_budget", "*there is no budget for /items/{count}; configure it, or give the marker *",
    "test_no_request", "*made no request to /wrong that counts; it made: GET /items/{count}",
    "test_no_such_limit", "marker budget: there is no 'querys'; there are endpoint, method, *",
    "test_no_time", "marker budget: max_s: 'x' is no duration; *",
    "test_no_order", "marker budget: p95 (3 s) is above max (2 s); *",
    "test_two_endpoints", "marker budget: takes one endpoint; use one marker for each",
    "test_no_route", "marker budget: endpoint 'a' must be a route template starting with '/'",
    "test_no_number", "marker budget: queries -1 is not a whole number, 0 or above",
    "test_fails_by_itself", "E *KeyError: 'its own'",
    "test_in_a_loop", "over budget: GET /items/{count}: 2 queries; 1 may be:",
    "test_of_unittest", "over budget: GET /items/{count}: 2 queries; 1 may be:",
]  # fmt: skip


def test_what_keeps_its_budget_passes(run):
    run(KEPT).assert_outcomes(passed=10)


def test_what_does_not_fails_and_says_why(run):
    result = run(BROKEN, "-p", "no:xdist", "-p", "no:randomly")
    result.assert_outcomes(failed=15)
    for test, *wanted in split(SAID):
        output = [line.strip() for line in section(result.outlines, test)]
        for pattern in wanted:
            assert any(matches(line, pattern) for line in output), (test, pattern, output)
    assert not any("queries; 0 may be" in line for line in result.outlines)


def split(said):
    found = []
    for each in said:
        found.append([each]) if each.startswith("test_") else found[-1].append(each)
    return found


def section(output, test):
    start = next(n for n, line in enumerate(output) if line.startswith("__") and test in line)
    end = next(n for n in range(start + 1, len(output)) if output[n].startswith(("__", "==")))
    return output[start:end]


def matches(line, pattern):
    from fnmatch import fnmatchcase

    return fnmatchcase(line, pattern)


@pytest.mark.parametrize("where", ["file", "code"])
def test_configured_budgets_apply(run, pytester, where):
    app, budget = APP, "/items/{count}"
    if where == "file":
        pytester.makefile(".toml", pbmon=f'budgets = [{{endpoint = "{budget}", max = "50ms"}}]')
    else:
        app += f"""
    pbmon.configure(budgets=[pbmon.Budget("{budget}", max_s=0.05)], signals=False)
"""
    result = run(
        """
pytestmark = pytest.mark.budget

def test_kept():
    get("/items/0", "/items/0")
    get("/other/0?sleep=0.1")

@pytest.mark.budget("/items/{count}")
def test_broken():
    get("/items/0?sleep=0.1")
""",
        "--tb=line",
        app=app,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["over budget: /items/{count}: max 50 ms: 1 of 1 request took longer"]
    )


def test_djangos_clients(run):
    result = run(
        """
import asyncio
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"], USE_TZ=True)
import django
django.setup()
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

def page(request, number):
    with CONNECT() as connection:
        connection.execute("SELECT 1").fetchall()
    connection.close()
    return HttpResponse("ok")

urlpatterns = [path("pages/<int:number>/", page)]

@pytest.mark.budget("/pages/{number}/", queries=1, max="30s")
def test_asynchronous():
    asyncio.run(AsyncClient().get("/pages/7/"))

@pytest.mark.budget("/pages/{number}/", queries=1, max="30s")
def test_synchronous():
    Client().get("/pages/7/")

@pytest.mark.budget("/pages/{number}/", queries=0)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_too_many(kind):
    answer = kind().get("/pages/7/")
    if kind is AsyncClient:
        asyncio.run(answer)
""",
        "--tb=line",
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["over budget: GET /pages/{number}/: 1 queries; 0 may be:"] * 2)


# --- the run file ---

WRITING = """
@pytest.mark.parametrize("number", range(8))
@pytest.mark.budget
def test_marked(number):
    get(f"/items/{number}", "/other/0")

def test_other():
    get("/items/1")

@pytest.mark.budget(queries=0)
def test_failing():
    get("/items/1")
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_requests_of_marked_tests_are_written(run, pytester, workers):
    path = pytester.path / "run.jsonl"
    path.write_text("of a run before\n", encoding="utf-8")
    run(WRITING, "--pbmon-budgets=run.jsonl", *workers).assert_outcomes(passed=9, failed=1)
    found = lines(path)
    assert len(found) == 17
    assert sorted(each["queries"] for each in found if each["route"] == "/items/{count}") == [
        0, 1, 1, 2, 3, 4, 5, 6, 7,
    ]  # fmt: skip
    tests = {each["test"].partition("::")[2] for each in found}
    assert tests == {"test_failing", *(f"test_marked[{n}]" for n in range(8))}
    assert all(each["duration_s"] > 0 and each["method"] == "GET" for each in found)


def test_what_was_written_before_a_worker_crashed_stays(run, pytester):
    crashing = """
import os

@pytest.mark.budget
def test_a():
    get("/items/1")

def test_b():
    os._exit(1)

@pytest.mark.budget
def test_c():
    get("/items/2")
"""
    run(crashing, "--pbmon-budgets=run.jsonl", "-n", "1").assert_outcomes(passed=2, failed=1)
    assert [each["queries"] for each in lines(pytester.path / "run.jsonl")] == [1, 2]


def test_a_file_that_can_not_be_written_is_wrong_usage(run):
    result = run(WRITING, "--pbmon-budgets=no/where/run.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --pbmon-budgets: *run.jsonl: No such file or directory"])


def test_the_marker_is_explained(run):
    result = run("", "--markers")
    result.stdout.fnmatch_lines(['@pytest.mark.budget("/route", method=None, max=None, *'])


# --- what it costs ---


def test_unused_it_loads_nothing_of_opentelemetry():
    """Neither where tests do not use it, which is most of the runs it is loaded in."""
    program = (
        "import sys, pytest, pbmon.testing\n"
        "loaded = [m for m in sys.modules if m.partition('.')[0] in ('opentelemetry', 'sqlalchemy',"
        " 'wrapt', 'sqlglot') or m.startswith('pbmon.') and not m.startswith('pbmon.testing')"
        " or m == 'pbmon.testing.capturing']\n"
        "print(loaded)"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    assert subprocess.check_output(command, text=True) == "[]\n"


def test_capture_works_without_pytest():
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from pbmon.testing import capture\n"
        "with capture() as seen: pass\n"
        "import pbmon.testing; print(hasattr(pbmon.testing, 'pbmon_capture'))"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    assert subprocess.check_output(command, text=True) == "False\n"
