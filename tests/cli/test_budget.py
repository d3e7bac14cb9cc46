"""`pbmon budget`: a run's file and a real Prometheus in, exit codes and artefacts out."""

from __future__ import annotations

import io
import json
import sys
import uuid
from xml.etree import ElementTree as ET

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from pbmon import cli, runtime, wiring
from pbmon.parsing import budgets as parse_budgets
from pbmon.sources import tomllib
from pbmon.testing import capture
from tests.stack.process import HOST, unused_port
from tests.stack.servers import wait_until
from tests.telemetry.drive import http, request

BUDGETS = "/a max=500ms p95=300ms availability=0.99; POST /b p99=100ms"


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """No setting but these budgets; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PBMON_BUDGETS", BUDGETS)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def budget(capsys):
    """Runs the command: its exit code, what it said and what it complained of."""

    def run(*arguments):
        status = cli.main(["budget", *map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def write(tmp_path):
    """Writes a run: (method, route, duration, times), or lines as they are."""

    def make(*requests, name="run.jsonl"):
        lines = []
        for each in requests:
            if isinstance(each, str):
                lines.append(each)
                continue
            method, route, duration_s, times, *failed = each
            line = {"method": method, "route": route, "duration_s": duration_s}
            lines += [json.dumps(line | ({"failed": True} if failed else {}))] * times
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return make


# --- a run ---


def test_a_run_that_keeps_its_budgets(budget, write):
    run = write(("GET", "/a", 0.2, 195), ("POST", "/a", 0.4, 5), ("POST", "/b", 0.05, 100),
                ("GET", "/b", 9.0, 3), ("GET", "/c", 9.0, 1))  # fmt: skip
    assert budget("check", run) == (
        0,
        (
            "Budgets\n"
            "endpoint  limit         is      requests  over  share  at least  may be\n"
            "/a        max           500 ms       200     0  0.00%  –         none    passed\n"
            "/a        p95           300 ms       200     5  2.50%  1.22%     5 %     passed\n"
            "/a        availability  0.99         200     0  0.00%  0.00%     1 %     passed\n"
            "POST /b   p99           100 ms       100     0  0.00%  0.00%     1 %     passed\n"
            "\n"
            "2 routes without a budget\n"
            "0 failed, 0 undecided, 4 passed\n"
        ),
        "",
    )


@pytest.mark.parametrize(
    ("slow", "status", "said"),
    [
        (15, 0, "0 failed"),
        (
            16,
            1,
            "/a: p95 300 ms: 16 of 200 requests took longer (8.00%, at least 5.38%); 5 % may\n",
        ),
    ],
)
def test_the_sixteenth_of_two_hundred_fails(budget, write, slow, status, said):
    found = budget("check", write(("GET", "/a", 0.4, slow), ("GET", "/a", 0.2, 200 - slow)))
    assert found[0] == status
    assert said in found[1]


def test_max_and_availability(budget, write):
    run = write(("GET", "/a", 0.2, 199), ("GET", "/a", 0.6, 1), ("GET", "/a", 9.0, 10, "failed"))
    status, out, _ = budget("check", run)
    assert status == 1
    assert "/a: max 500 ms: 1 of 200 requests took longer\n" in out
    assert (
        "/a: availability 0.99: 10 of 210 requests failed (4.76%, at least 2.87%); 1 % may" in out
    )
    status, out, _ = budget("check", run, "--max-allow", "1")
    assert status == 1
    assert "max 500 ms:" not in out


def test_too_few_requests_pass_unless_strict(budget, write):
    run = write(("GET", "/a", 0.2, 10), ("POST", "/b", 0.01, 99))
    status, out, _ = budget("check", run)
    assert (status, out.splitlines()[-1]) == (0, "0 failed, 3 undecided, 1 passed")
    assert budget("check", run, "--strict")[0] == 1


def test_a_budget_of_an_operation_is_not_for_a_run(budget, write, monkeypatch):
    monkeypatch.setenv("PBMON_BUDGETS", "/a max=1s; nightly max=1h availability=0.9")
    run = write(("GET", "/a", 0.2, 10))
    status, out, _ = budget("check", run, "--strict")
    assert status == 0
    assert out.splitlines()[-2:] == [
        "1 budgets of operations: a run has none; --prometheus judges them",
        "0 failed, 0 undecided, 1 passed",
    ]


def test_the_first_requests_may_be_left_out(budget, write):
    run = write(("GET", "/a", 0.9, 2), ("GET", "/a", 0.1, 100))
    assert budget("check", run)[0] == 1
    assert budget("check", run, "--warmup", "2")[0] == 0


def test_several_files_and_standard_input(budget, write, monkeypatch):
    one = write(("GET", "/a", 0.1, 60), name="one.jsonl")
    two = write(("GET", "/a", 0.1, 40), name="two.jsonl")
    assert "100     0  0.00%" in budget("check", one, two)[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(two.read_bytes())))
    assert "/a        max           500 ms        40 " in budget("check", "-")[1]


def test_what_was_counted_elsewhere(budget, write):
    run = write(
        '{"route": "/a", "limit": "p95", "requests": 1000, "over": 40}',
        '{"route": "/a", "limit": "p95", "requests": 1000, "over": 77}',
        '{"route": "/job", "limit": "max", "requests": 3, "over": 0}',
    )
    status, out, _ = budget("check", run)
    assert status == 1
    assert "/a: p95 300 ms: 117 of 2,000 requests took longer (5.85%, at least 5.04%)" in out
    assert "/job      max    –              3     0" in out


# --- artefacts ---


def test_artefacts(budget, write, tmp_path, monkeypatch):
    run = write(("GET", "/a", 0.6, 3))
    summary = tmp_path / "summary.md"
    summary.write_text("of the step before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    arguments = ("--markdown", tmp_path / "m.md", "--junit", tmp_path / "j.xml", "--summary")
    status, out, _ = budget("check", run, *arguments, "--json")
    assert status == 1
    assert json.loads(out)["budgets"][0]["over"] == 3
    markdown = (tmp_path / "m.md").read_text(encoding="utf-8")
    assert markdown.startswith("## Performance budgets\n\n2 failed, 2 undecided, 0 passed\n")
    assert summary.read_text(encoding="utf-8") == f"of the step before\n{markdown}"
    root = ET.fromstring((tmp_path / "j.xml").read_bytes())
    assert [suite.get("failures") for suite in root] == ["2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--summary",), "--summary: GITHUB_STEP_SUMMARY is not set"),
        (("--junit", "no/where.xml"), "no/where.xml: No such file or directory"),
        (("--markdown", "."), ".: Is a directory"),
    ],
    ids=range(3),
)
def test_what_can_not_be_written_is_wrong_input(budget, write, arguments, said):
    status, _, err = budget("check", write(("GET", "/a", 0.1, 3)), *arguments)
    assert (status, err) == (2, f"pbmon budget: {said}\n")


# --- against a baseline ---


def test_a_run_that_is_slower_than_its_baseline(budget, write):
    before = write(("GET", "/a", 0.1, 200), ("GET", "/gone", 0.1, 9), name="before.jsonl")
    after = write(("GET", "/a", 0.13, 200), ("GET", "/new", 0.1, 9), name="after.jsonl")
    status, out, _ = budget("check", after, "--baseline", before)
    assert status == 1
    assert "GET /a: 100 ms before, 130 ms now: +30.0% (by chance: 9.5e-07)\n" in out
    assert "GET /gone: only in the baseline\nGET /new: not in the baseline\n" in out
    assert "One run after another" in out
    assert budget("check", after, "--baseline", before, "--tolerance", "35%")[0] == 0
    assert budget("check", before, "--baseline", after, before)[0] == 0


def test_a_baseline_needs_no_budgets(budget, write, monkeypatch):
    monkeypatch.delenv("PBMON_BUDGETS")
    run = write(("GET", "/a", 0.1, 200))
    status, out, _ = budget("check", run, "--baseline", run)
    assert (status, out.splitlines()[-1]) == (0, "0 failed, 0 undecided, 1 passed")


# --- input that is none ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "check FILE, or check --prometheus"),
        (("run.jsonl", "--prometheus"), "check FILE, or check --prometheus"),
        (("--prometheus", "--baseline", "x"), "--baseline goes with FILE"),
        (("no.jsonl",), "no.jsonl: No such file or directory"),
        (("no\0.jsonl",), "no\\x00.jsonl: embedded null byte"),
        (("no.jsonl", "--baseline", "x"), "no.jsonl: No such file or directory"),
        (("--prometheus",), "set prometheus_url to have it from Prometheus"),
        (("--prometheus", "ftp://x"), "prometheus_url: 'ftp://x' is no URL"),
        (("--prometheus", "http://far.example"), "http://far.example would be used unencrypted"),
        (("--prometheus", "https://x", "--since-release"), "--since-release: no release is set"),
    ],
    ids=range(10),
)
def test_bad_input_is_2_and_one_line(budget, arguments, said):
    status, out, err = budget("check", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.startswith("pbmon budget: ")
    assert err.count("\n") == 1


def test_a_run_without_anything_to_judge_is_2(budget, write, monkeypatch):
    nothing = (
        "pbmon budget: no request of the run is of a route with a budget, or of the baseline\n"
    )
    assert budget("check", write()) == (2, "", nothing)
    assert budget("check", write(("GET", "/c", 1.0, 5))) == (2, "", nothing)
    assert budget("check", write("\x1b[31m"))[2] == (
        f"pbmon budget: {write()}, line 1: is no JSON object in one line\n"
    )
    monkeypatch.delenv("PBMON_BUDGETS")
    assert "there are no budgets; set them" in budget("check", write(("GET", "/a", 1, 1)))[2]


def test_a_budget_that_can_not_be_used_is_2(budget, write, monkeypatch):
    """Or a typo would switch the gate off."""
    monkeypatch.setenv("PBMON_BUDGETS", f"{BUDGETS}; /c max=fast")
    status, out, err = budget("check", write(("GET", "/a", 0.1, 100)))
    assert (status, out) == (2, "")
    assert "budget for /c" in err
    assert err.endswith("a budget can't be used, and so not be judged; mend it\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "x", "--tolerance", "-1"), "'-1' is no share; write 0.15 or 15%"),
        (("check", "x", "--tolerance", "nan"), "'nan' is no share"),
        (("check", "--prometheus", "--window", "0s"), "'0s' is no time; write one such as 30m"),
        (("check", "--prometheus", "--window", "1x"), "'1x' is no time"),
        (("check", "x", "--max-allow", "-1"), "'-1' is not a whole number"),
        ((), "the following arguments are required: ACTION"),
    ],
    ids=range(6),
)
def test_wrong_usage(capsys, arguments, said):
    with pytest.raises(SystemExit) as left:
        cli.main(["budget", *arguments])
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_a_large_run_with_strange_names(budget, tmp_path, monkeypatch):
    name = "/für/{id}/🙂\u202e"
    monkeypatch.setenv("PBMON_BUDGETS", "")
    (tmp_path / "pbmon.toml").write_text(
        f'budgets = [{{endpoint = "{name}", p95 = 0.3}}]', encoding="utf-8"
    )
    line = json.dumps({"method": "GET", "route": name, "duration_s": 0.1}, ensure_ascii=False)
    (tmp_path / "run.jsonl").write_text(f"{line}\n" * 50_000, encoding="utf-8")
    status, out, _ = budget("check", "run.jsonl", "--junit", "j.xml")
    assert status == 0
    assert "/für/{id}/🙂\\u202e  p95    300 ms    50,000" in out
    assert "/für/{id}/🙂\\u202e p95" in (tmp_path / "j.xml").read_text(encoding="utf-8")


# --- list and suggest ---


def test_list(budget, monkeypatch):
    assert budget("list") == (
        0,
        (
            "endpoint  method  max     p95     p99     availability\n"
            "/a        any     500 ms  300 ms  –       0.99\n"
            "/b        POST    –       –       100 ms  –\n"
            "from: environment PBMON_BUDGETS\n"
        ),
        "",
    )
    monkeypatch.delenv("PBMON_BUDGETS")
    assert budget("list") == (0, "there are no budgets\n", "")


def test_of_code(budget, tmp_path, write):
    (tmp_path / "shop_with_budgets.py").write_text(
        "from pbmon import wiring\n"
        "from pbmon.runtime import active\n"
        "from pbmon.settings import resolve\n"
        "active.settings, _ = resolve({'budgets': ['/code max=1s']})\n"
        "active.configured = True\n",
        encoding="utf-8",
    )
    before = runtime.active.settings, runtime.active.configured, list(sys.path)
    try:
        status, out, _ = budget("list", "--import", "shop_with_budgets")
        assert (status, "/code     any     1 s" in out, "from: configure()" in out) == (
            0,
            True,
            True,
        )
    finally:
        runtime.active.settings, runtime.active.configured, sys.path[:] = before
        sys.modules.pop("shop_with_budgets", None)
    assert budget("list", "--import", "not_there")[2] == (
        "pbmon budget: import of not_there failed with ModuleNotFoundError\n"
    )
    sys.path[:] = before[2]


def test_suggested_budgets_are_kept_by_the_run(budget, write, tmp_path, monkeypatch):
    monkeypatch.setenv("PBMON_BUDGETS", "")
    name = '/ü🙂\x7f"\\'
    run = write(
        *(("GET", name, n / 1000, 1) for n in range(1, 301)),
        ("PUT", "/b", 2.345, 5),
        ("PUT", "/b", 99, 1, "failed"),
    )
    status, out, _ = budget("suggest", run)
    assert status == 0
    assert tomllib.loads(out) == {
        "budgets": [
            {
                "endpoint": name,
                "method": "GET",
                "p95": "430ms",
                "p99": "450ms",
                "max": "450ms",
            },
            {"endpoint": "/b", "method": "PUT", "max": "3600ms"},
        ]
    }
    (tmp_path / "pbmon.toml").write_text(out, encoding="utf-8")
    assert budget("check", run)[0] == 0
    tight = budget("suggest", run, "--headroom", "0")[1]
    assert tomllib.loads(tight)["budgets"][1]["max"] == "2400ms"
    assert budget("suggest", write())[0] == 2


# --- Prometheus ---


class Process:
    """One life of a process of a service, whose metrics go to Prometheus."""

    def __init__(self, prometheus, service, release, budgets):
        identity = {"service.name": service, "service.version": release,
                    "service.instance.id": str(uuid.uuid4())}  # fmt: skip
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], Resource(identity), shutdown_on_exit=False)
        self._exporter = OTLPMetricExporter(f"{prometheus.otlp_endpoint}/v1/metrics")
        self._budgets = budgets

    def serve(self, *requests):
        """(method, route, duration, times, status)"""
        with capture(budgets=self._budgets, request_log="off") as seen:
            made = wiring.install_sinks(
                runtime.active.settings, TracerProvider(shutdown_on_exit=False).get_tracer("x"),
                self._meters.get_meter("pbmon"), seen.clock, seen,
            )  # fmt: skip
            assert made
            self._export()  # at 0
            for method, route, duration_s, times, status in requests:
                for _ in range(times):
                    request(
                        seen, http(method=method), route=route, first_s=duration_s, status=status
                    )
            self._export()

    def _export(self):
        assert self._exporter.export(self._reader.get_metrics_data()).name == "SUCCESS"

    def close(self):
        self._exporter.shutdown()
        self._meters.shutdown()


@pytest.fixture
def served(stack_prometheus):
    """A service, in two processes of an old release and one of a new."""
    service, budgets = f"shop-{uuid.uuid4().hex[:8]}", parse_budgets(BUDGETS)
    started = [Process(stack_prometheus, service, release, budgets) for release in "112"]
    started[0].serve(("GET", "/a", 0.1, 150, 200), ("GET", "/a", 0.4, 10, 200))
    started[1].serve(
        ("GET", "/a", 0.4, 14, 200), ("GET", "/a", 0.4, 2, 500), ("GET", "/b", 1, 9, 200)
    )
    started[2].serve(("POST", "/a", 0.1, 100, 200), ("POST", "/b", 0.01, 20, 200))
    query = f'sum(pbmon_budget_requests_total{{service_name="{service}", http_route="/b"}})'
    wait_until(lambda: [v for _, v in stack_prometheus.query(query) if v == 20], "the samples", 30)
    for each in started:
        each.close()
    return service


def test_what_prometheus_counted(budget, served, stack_prometheus, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", served)
    monkeypatch.setenv("PBMON_BUDGETS", "")  # it is told of them by the metrics
    monkeypatch.setenv("PBMON_PROMETHEUS_URL", stack_prometheus.url)
    status, out, err = budget("check", "--prometheus", "--window", "30m")
    assert err == ""
    rows = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[2:6] == [
        ["/a", "p95", "300 ms", "274", "24", "8.76%", "6.34%", "5 %", "failed"],
        ["POST /b", "p99", "100 ms", "20", "0", "0.00%", "0.00%", "1 %", "undecided"],
        ["/a", "availability", "0.99", "276", "2", "0.72%", "0.24%", "1 %", "passed"],
        ["/a", "max", "500 ms", "274", "0", "0.00%", "–", "none", "passed"],
    ]
    assert f"{served}, the last 1,800 s, {stack_prometheus.url}" in out
    assert status == 1


def test_since_the_release(budget, served, stack_prometheus, monkeypatch):
    monkeypatch.setenv("PBMON_RELEASE", "2")
    url = stack_prometheus.url
    options = ("--prometheus", url, "--service", served, "--since-release")
    status, out, _ = budget("check", *options, "--json")
    assert status == 0
    counted = {(b["route"], b["limit"]): b["requests"] for b in json.loads(out)["budgets"]}
    assert counted == {
        ("/a", "max"): 100, ("/a", "p95"): 100, ("/a", "availability"): 100, ("/b", "p99"): 20
    }  # fmt: skip
    monkeypatch.setenv("PBMON_RELEASE", "3")
    status, out, err = budget("check", *options)
    assert (status, out) == (2, "")
    assert "Prometheus counted no request of a budget; look at --service" in err


def test_nobody_there(budget):
    url = f"http://{HOST}:{unused_port()}"
    status, out, err = budget("check", "--prometheus", url)
    assert (status, out) == (2, "")
    assert err.startswith(
        f"pbmon budget: {url} can't be asked: connection refused; see that it runs"
    )
