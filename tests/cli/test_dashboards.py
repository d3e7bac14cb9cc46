"""`pbmon dashboards`, through its own parser."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pbmon.cli import assets, dashboards

BUSINESS = "business.json"
FIRST = "budgets.json"
"""By name."""
COMMITTED = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="pbmon dashboards")
    dashboards.configure(parser)
    return dashboards.run(parser.parse_args(words))


def test_export_makes_the_directory_and_writes_every_dashboard(tmp_path, capsys):
    target = tmp_path / "new" / "dashboards"
    assert run("export", str(target)) == 0
    written = {path.name: path.read_bytes() for path in target.iterdir()}
    assert written == {path.name: path.read_bytes() for path in COMMITTED.glob("*.json")}
    assert BUSINESS in written
    assert f"wrote {target / BUSINESS}" in capsys.readouterr().out


def test_export_again_changes_nothing(tmp_path, capsys):
    run("export", str(tmp_path))
    before = (tmp_path / BUSINESS).stat().st_mtime_ns
    assert run("export", str(tmp_path)) == 0
    assert (tmp_path / BUSINESS).stat().st_mtime_ns == before
    assert f"unchanged {tmp_path / BUSINESS}" in capsys.readouterr().out


def test_other_content_stays_unless_forced(tmp_path, capsys):
    mine = tmp_path / BUSINESS
    mine.write_text("mine")
    assert run("export", str(tmp_path)) == 1
    assert mine.read_text() == "mine"
    assert one_line(capsys) == f"{mine}: has other content; overwrite it with --force"
    assert run("export", str(tmp_path), "--force") == 0
    assert json.loads(mine.read_text())["title"] == "Pocketbook Business Metrics"


def test_nothing_is_written_when_one_file_is_in_the_way(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.json", "b.json"):
        (source / name).write_text("{}")
    monkeypatch.setattr(assets, "directory", lambda name: source)
    target = tmp_path / "target"
    target.mkdir()
    (target / "b.json").write_text("mine")
    assert run("export", str(target)) == 1
    assert not (target / "a.json").exists()
    assert one_line(capsys).startswith(f"{target / 'b.json'}: has other content")


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_is_not_a_directory(tmp_path, capsys, below):
    file = tmp_path / "file"
    file.write_text("")
    assert run("export", f"{file}{below}") == 1
    assert one_line(capsys).lower() in (
        f"{file}{below}: is not a directory",
        f"{file}{below}: not a directory",
    )


def test_a_directory_that_takes_no_file(tmp_path, capsys, monkeypatch):
    if os.geteuid() == 0:  # root writes anywhere: take the system call's own answer instead

        def denied(path, content):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "write_bytes", denied)
    tmp_path.chmod(0o500)
    assert run("export", str(tmp_path)) == 1
    assert one_line(capsys) == f"{tmp_path / FIRST}: Permission denied"
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_a_files_place(tmp_path, capsys):
    (tmp_path / BUSINESS).mkdir()
    assert run("export", str(tmp_path), "--force") == 1
    assert one_line(capsys) == f"{tmp_path / BUSINESS}: Is a directory"


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, capsys, monkeypatch):
    (tmp_path / FIRST).write_text("old")
    real = Path.write_bytes

    def full(path, content):
        real(path, content[:100])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run("export", str(tmp_path), "--force") == 1
    assert one_line(capsys) == f"{tmp_path / FIRST}: No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]
    assert (tmp_path / FIRST).read_text() == "old"


@pytest.mark.parametrize("words", [(), ("export",), ("export", "")])
def test_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_list_names_file_uid_and_title(capsys):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(COMMITTED.glob("*.json")))
    assert [line.split(maxsplit=2) for line in lines[:2]] == [
        [FIRST, "pbmon-budgets", "Budgets / SLO"],
        [BUSINESS, "pbmon-business", "Pocketbook Business Metrics"],
    ]


def test_a_wheels_files_come_before_the_checkouts(tmp_path, monkeypatch):
    package = tmp_path / "src" / "pbmon"
    checkout = tmp_path / "grafana" / "dashboards"
    carried = package / "_assets" / "grafana" / "dashboards"
    monkeypatch.setattr(assets, "_PACKAGE", package)
    checkout.mkdir(parents=True)
    assert assets.directory("grafana/dashboards") == checkout
    carried.mkdir(parents=True)
    assert assets.directory("grafana/dashboards") == carried


def test_an_installation_without_the_files_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "a" / "pbmon")
    assert run("list") == 1
    line = one_line(capsys)
    assert "has no grafana/dashboards" in line
    assert "install it again" in line


def test_an_empty_set_of_files_is_no_success(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assets, "directory", lambda name: tmp_path)
    assert run("export", str(tmp_path / "target")) == 1
    assert one_line(capsys).startswith(f"{tmp_path}: holds no dashboard")


def test_opentelemetry_stays_unloaded():
    code = (
        "import sys, pbmon.cli.dashboards;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def one_line(capsys) -> str:
    """The only line on standard error, without the command's name."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("pbmon dashboards: ")
    return lines[0].removeprefix("pbmon dashboards: ")
