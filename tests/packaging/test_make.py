"""The Makefile on machines that lack something, and what it may and may not do."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

MAKEFILE = ROOT / "Makefile"
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    inherited.pop("MFLAGS", None)
    return subprocess.run(
        command,
        cwd=cwd,
        check=False,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def make_venv(target: Path, *pythons: str, path: str = os.defpath):
    words = (" ".join(pythons),) if pythons else ()
    return run("sh", str(ROOT / "requirements" / "venv.sh"), str(target), *words, PATH=path)


def fake_python(path: Path, version: str, *, venv: bool = True) -> Path:
    """A Python that says it has this version, and makes a venv that says so too."""
    body = f"""
case "$*" in
    *version_info*) echo {version} ;;
    *ensurepip*) exit {0 if venv else 1} ;;
    "-m venv"*) mkdir -p "$4" && echo {version} >"$4/made-by" ;;
    *) exit 9 ;;
esac"""
    return script(path, body)


def test_no_python_is_one_line_with_the_remedy(tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    (empty / "sh").symlink_to("/bin/sh")
    done = make_venv(tmp_path / "venv", path=str(empty))
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "needs Python 3.10 or newer" in line
    assert "make PYTHON=/path/to/python" in line
    assert not (tmp_path / "venv").exists()


def test_an_old_python_is_refused(tmp_path):
    old = fake_python(tmp_path / "python", "3.9")
    done = make_venv(tmp_path / "venv", str(old))
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "needs Python 3.10 or newer" in line
    assert str(old) in line


def test_python_without_venv_is_one_line_with_the_package(tmp_path):
    bare = fake_python(tmp_path / "python", "3.12", venv=False)
    done = make_venv(tmp_path / "venv", str(bare))
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "apt-get install python3.12-venv" in line


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        (("3.9", "3.11", "3.12"), "3.11"),  # the first tested one
        (("3.14", "3.13"), "3.13"),  # tested before newer
        (("3.9", "3.14"), "3.14"),  # newer if there is no other
        (("2.7", "3.10"), "3.10"),
    ],
)
def test_the_best_python_is_chosen(tmp_path, versions, chosen):
    pythons = [str(fake_python(tmp_path / f"python{v}", v)) for v in versions]
    done = make_venv(tmp_path / "venv", *pythons)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "venv" / "made-by").read_text().strip() == chosen


def test_a_shim_without_a_python_behind_it_is_passed_over(tmp_path):
    shim = script(tmp_path / "shim", "echo 'not installed' >&2; exit 127")
    good = fake_python(tmp_path / "python", "3.10")
    assert make_venv(tmp_path / "venv", str(shim), str(good)).returncode == 0


@needs_make
def test_a_missing_python_is_told_by_make(tmp_path):
    done = run("make", "demo", f"VENV={tmp_path / 'venv'}", "PYTHON=/nonexistent/python")
    assert done.returncode != 0
    assert "needs Python 3.10 or newer, and none of these is one: /nonexistent" in done.stderr


@needs_make
def test_only_locked_and_hashed_packages_go_into_a_virtual_environment_only(tmp_path):
    venv, log = tmp_path / "venv", tmp_path / "log"
    script(venv / "bin" / "python", f'echo "$@" >>"{log}"')
    done = run("make", "test", f"VENV={venv}")
    assert done.returncode == 0, done.stderr
    calls = log.read_text().splitlines()
    installs = [call for call in calls if " install " in call]
    assert len(installs) == 3
    assert all("-m pip --require-virtualenv" in call for call in installs)
    assert all("--no-deps" in call for call in installs)
    for name, call in zip(("demo", "test"), installs[:2], strict=True):
        assert call.endswith(f"--no-deps --require-hashes -r requirements/{name}.txt")
    assert installs[2].endswith("--no-index --no-build-isolation --editable .")
    assert calls[-1].startswith("-m pytest -n")

    log.unlink()
    assert run("make", "test", f"VENV={venv}").returncode == 0
    assert len(log.read_text().splitlines()) == 1, "the second run installs nothing"


@needs_make
def test_a_failed_installation_is_told_and_tried_again(tmp_path):
    venv = tmp_path / "venv"
    script(venv / "bin" / "python", "exit 1")
    for _ in range(2):
        done = run("make", "demo", f"VENV={venv}")
        assert done.returncode != 0
        assert "requirements/demo.txt can't be installed" in done.stderr
    assert not (venv / ".demo").exists()


@needs_make
def test_help_is_the_default_and_lists_every_target():
    done = run("make")
    assert done.returncode == 0
    listed = set(re.findall(r"^  make (\w+)", done.stdout, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    assert listed == {*phony.split(), "secrets"}


RECEIVERS = {"alert_pagerduty_key", "alert_slack_url", "alert_watchdog_url"}


@needs_make
def test_secret_is_random_closed_to_others_and_kept(tmp_path):
    command = ("make", "-f", str(MAKEFILE), "secrets", f"VENV={sys.prefix}")
    passwords = []
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        done = run(*command, cwd=place)
        assert done.returncode == 0, done.stderr
        secret = place / ".secrets" / "grafana_admin_password"
        passwords.append(secret.read_text())
        assert len(passwords[-1]) >= 32
        assert passwords[-1].isprintable()
        assert passwords[-1] not in done.stdout + done.stderr
        # Others on the host stop at the directory; Grafana's user in its container, to which
        # the file itself is mounted, must read it.
        assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(secret.stat().st_mode) == 0o644
        receivers = [path for path in secret.parent.iterdir() if path != secret]
        assert {path.name for path in receivers} == RECEIVERS
        for path in receivers:
            assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("", 0o644)
            path.write_text("filled in")
        assert run(*command, cwd=place).returncode == 0
        assert secret.read_text() == passwords[-1]
        assert {path.read_text() for path in receivers} == {"filled in"}
    assert passwords[0] != passwords[1]
