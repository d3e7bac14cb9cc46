"""The settings file read again: what counts, what is told, what is left as it was."""

from __future__ import annotations

import logging
import os
import textwrap
from pathlib import Path

import pytest

from pbmon import reload, runtime, signals
from pbmon.budgets import Budget
from pbmon.reload import Reload
from pbmon.settings import RELOADING, resolve
from pbmon.testing import capture
from tests.fresh import python

ONE = '[[budgets]]\nendpoint = "/a"\nmax = "1s"\n'
TWO = '[[budgets]]\nendpoint = "/a"\nmax = "2s"\n'
EXAMPLE = Path(__file__).parents[1] / "examples" / "pocketbook" / "pbmon.toml"


class Process:
    """A process of one settings file, without its threads. look(): a second goes by."""

    def __init__(self, directory, monkeypatch, keywords=(), environ=()):
        self.file = directory / "pbmon.toml"
        self.directory = directory
        self.keywords, self.environ = dict(keywords), dict(environ)
        self.applied = []
        self.now_s = 1000.0
        monkeypatch.setattr(reload.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(reload.os, "environ", self.environ)
        monkeypatch.setattr(signals, "_last_told", {})
        self.reload = Reload(directory, self._resolve, self._apply)
        runtime.active.settings, self.problems = self._resolve()

    def _resolve(self):
        return resolve(self.keywords, self.environ, self.directory)

    def _apply(self, settings):
        self.applied.append(settings)
        runtime.active.settings = settings

    def write(self, text):
        """As a good editor: another file, renamed."""
        beside = self.file.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, self.file)

    def look(self, times=1):
        for _ in range(times):
            self.now_s += 1
            self.reload.look()

    @property
    def max_s(self):
        found = runtime.active.settings.budgets.find(None, "/a")
        return found and found.max_s


@pytest.fixture
def process(tmp_path, monkeypatch):
    with capture():
        (tmp_path / "pbmon.toml").write_text(ONE)
        yield Process(tmp_path, monkeypatch)


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "pbmon.internal"]


def test_a_changed_number_counts_after_two_looks(process, caplog):
    caplog.set_level(logging.INFO, "pbmon")
    process.write(TWO)
    process.look()
    assert process.max_s == 1
    process.look()
    assert process.max_s == 2
    process.look(5)
    assert len(process.applied) == 1
    assert [r.getMessage() for r in caplog.records] == [
        "pbmon took from its changed settings: budgets"
    ]


def test_it_looks_once_a_second_however_often_it_is_asked(process, monkeypatch):
    looks = []
    monkeypatch.setattr(process.reload, "_stamps", lambda: looks.append(1) or (None, None))
    for _ in range(25):
        process.now_s += 0.1
        process.reload.look()
    assert len(looks) == 3


def test_a_file_that_is_being_written_is_waited_for(process):
    """The first half of it is good TOML, and says something else."""
    with process.file.open("w") as file:
        for line in (TWO + '\n[[budgets]]\nendpoint = "/b"\nmax = "3s"\n').splitlines(True):
            file.write(line)
            file.flush()
            process.look()
            assert process.applied == []
    process.look()
    assert process.max_s == 2
    assert len(runtime.active.settings.budgets.all) == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[[budgets]]\nendpoint = "/a"\nmax = 2s\n', "line 3"),
        ('[[budgets]\nendpoint = "/a"\n', "line 1"),
        ('[[budgets]]\nendpoint = "/a', "can't be read"),
        (b"\xff\xfe", "can't be read"),
        pytest.param(ONE + "#" * (1 << 20), "longer than 1,048,576 bytes", id="long"),
    ],
)  # fmt: skip
def test_a_broken_file_changes_nothing_and_is_told_once(process, caplog, text, line):
    process.file.write_bytes(text if isinstance(text, bytes) else text.encode())
    process.look(5)
    assert (process.max_s, process.applied) == (1, [])
    (said,) = told(caplog)
    assert str(process.file) in said
    assert line in said
    assert said.endswith("; what was in force before stays so")
    process.write(TWO)
    process.look(2)
    assert process.max_s == 2


@pytest.mark.parametrize("happens", [lambda file: file.unlink(), lambda file: file.write_text("")])
def test_a_file_that_is_gone_or_empty_is_no_wish(process, caplog, happens):
    happens(process.file)
    process.look(5)
    assert process.max_s == 1
    (said,) = told(caplog)
    assert str(process.file) in said
    assert "what it said stays in force" in said
    process.write(TWO)
    process.look(2)
    assert process.max_s == 2


def test_a_setting_that_is_wrong_stays_as_it_was_and_the_others_count(process, caplog):
    process.write("slow_request_s = 0.5\n" + ONE.replace("1s", "soon"))
    process.look(2)
    assert (process.max_s, runtime.active.settings.slow_request_s) == (1, 0.5)
    (said,) = told(caplog)
    assert f"setting budgets ({process.file}): budget for /a: max_s: 'soon' is no duration" in said


def test_a_good_budget_beside_a_bad_one_waits_for_it(process, caplog):
    """At a start it would count; here there is something better than half of what is wanted."""
    process.write(TWO + '[[budgets]]\nendpoint = "/b"\n')
    process.look(2)
    assert process.max_s == 1
    assert "budget for /b promises nothing" in told(caplog)[0]


def test_what_needs_a_restart_is_named_in_one_line(process, caplog):
    process.write('service_name = "other"\nendpoint = "http://elsewhere:4318"\n' + TWO)
    process.look(2)
    assert process.max_s == 2
    settings = runtime.active.settings
    assert (settings.service_name, settings.endpoint) == (None, "http://localhost:4318")
    (said,) = told(caplog)
    assert said == (
        "pbmon: service_name, endpoint changed in the settings file and can't change while the "
        "process runs; restart it"
    )


def test_code_and_environment_keep_winning(tmp_path, monkeypatch):
    with capture():
        (tmp_path / "pbmon.toml").write_text(ONE + "")
        process = Process(
            tmp_path,
            monkeypatch,
            keywords={"budgets": [Budget("/a", max_s=9)]},
            environ={"PBMON_SLOW_REQUEST_S": "7"},
        )
        process.write("slow_request_s = 3\nslow_query_s = 4\n" + TWO)
        process.look(2)
        settings = runtime.active.settings
        assert (process.max_s, settings.slow_request_s, settings.slow_query_s) == (9, 7, 4)
        assert settings.source("slow_query_s") == str(process.file)
        assert settings.source("slow_request_s") == "environment PBMON_SLOW_REQUEST_S"


def test_a_setting_that_is_taken_out_has_its_default_again(process):
    process.write("slow_request_s = 3\n" + ONE)
    process.look(2)
    process.write(ONE)
    process.look(2)
    settings = runtime.active.settings
    assert (settings.slow_request_s, settings.source("slow_request_s")) == (1.0, "default")


def test_a_file_that_comes_later_counts(tmp_path, monkeypatch):
    with capture():
        process = Process(tmp_path, monkeypatch)
        assert process.max_s is None
        process.write(ONE)
        process.look(2)
        assert process.max_s == 1


def test_the_table_of_pyproject_counts_too(tmp_path, monkeypatch):
    with capture():
        project = tmp_path / "pyproject.toml"
        project.write_text("[tool.pbmon]\nslow_query_s = 1\n[tool.ruff]\n")
        process = Process(tmp_path, monkeypatch)
        project.write_text("[tool.pbmon]\nslow_query_s = 2\n[tool.ruff]\n")
        process.look(2)
        assert runtime.active.settings.slow_query_s == 2


def test_the_file_that_the_variable_names(tmp_path, monkeypatch):
    with capture():
        (tmp_path / "shop.toml").write_text(ONE)
        process = Process(tmp_path, monkeypatch, environ={"PBMON_CONFIG": "shop.toml"})
        assert process.max_s == 1
        (tmp_path / "shop.toml").write_text(TWO)
        process.look(2)
        assert process.max_s == 2


def test_it_can_be_switched_off(tmp_path, monkeypatch):
    with capture():
        (tmp_path / "pbmon.toml").write_text("reload = false\n" + ONE)
        process = Process(tmp_path, monkeypatch)
        process.write(TWO)
        process.look(5)
        assert process.max_s == 1


def test_what_says_the_same_changes_nothing(tmp_path, monkeypatch, caplog):
    """Every setting of the example: none differs from itself."""
    caplog.set_level(logging.INFO, "pbmon")
    with capture():
        text = EXAMPLE.read_text(encoding="utf-8")
        (tmp_path / "pbmon.toml").write_text(text, encoding="utf-8")
        process = Process(tmp_path, monkeypatch)
        assert process.problems == []
        process.write(text + "# a word more\n")
        process.look(3)
        assert process.applied == []
        assert caplog.records == []


def test_the_settings_that_change_while_a_process_runs():
    assert RELOADING == ("slow_request_s", "slow_query_s", "request_log", "budgets")


FORKED = """
    import logging, os, sys, time
    import pbmon
    from pbmon.runtime import active

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
    logging.getLogger("pbmon").setLevel(logging.WARNING)

    def max_s():
        return pbmon.check_budget("/a", 0.5).budget.max_s

    def wait_for(number):
        until = time.monotonic() + 50
        while max_s() != number and time.monotonic() < until:
            time.sleep(0.02)
        assert max_s() == number

    pbmon.configure()
    os.chdir("/")  # as a daemon does: the file is where the process was started
    child = os.fork()
    if child == 0:
        wait_for(2.0)
        os._exit(0)
    with open(sys.argv[1] + "/new", "w") as file:
        file.write('[[budgets]]\\nendpoint = "/a"\\nmax = "2s"\\n')
    os.rename(sys.argv[1] + "/new", sys.argv[1] + "/pbmon.toml")
    wait_for(2.0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pbmon.configure(budgets=["/a max=7s"])  # code wins from now on
    assert max_s() == 7.0
    print("BOTH", [t.name for t in __import__("threading").enumerate()])
"""


def test_a_forked_child_follows_too_and_no_other_thread_is_needed(tmp_path):
    (tmp_path / "pbmon.toml").write_text(ONE)
    code = textwrap.dedent(FORKED).replace("sys.argv[1]", repr(str(tmp_path)))
    done = python(code, cwd=tmp_path)
    assert done.stdout == "BOTH ['MainThread', 'pbmon-spool']\n"
