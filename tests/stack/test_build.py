"""The builds: from committed pins only, once, whole or not at all, with errors that help.

`go` is a stand-in here, so that nothing is compiled; the other tests use what the real one made.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import build, programs
from tests.stack.programs import (
    ALERTMANAGER,
    COLLECTOR,
    JAEGER,
    PROGRAMS,
    PROMETHEUS,
    Program,
)

ROOT = Path(__file__).resolve().parents[2]
# Notes its call, takes a while, and leaves what `go build` would leave.
GO = """\
#!{python}
import os, pathlib, sys, time
with open({calls!r}, "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
time.sleep({sleep})
if {status}:
    print("go: some/module@v1: checksum mismatch")
    sys.exit({status})
if sys.argv[1] == "list":
    source = pathlib.Path({calls!r}).parent / "cached source"
    source.mkdir(mode=0o755, exist_ok=True)
    (source / "main.go").touch()
    source.chmod(0o555)
    print(source)
if sys.argv[1] != "build":
    sys.exit()
source = pathlib.Path("../source")
if source.exists():
    files = sorted(str(path.relative_to(source)) for path in source.rglob("*.*"))
    seen = [*files, pathlib.Path("go.mod").read_text()]
    pathlib.Path({calls!r}).with_name("completed").write_text("\\n".join(seen))
out = sys.argv[sys.argv.index("-o") + 1]
packages = sys.argv[sys.argv.index("-o") + 2:]
names = [os.path.join(out, p.split("/")[-1]) for p in packages] if out.endswith("/") else [out]
for name in names:
    path = pathlib.Path(name)
    path.write_text({builder!r})
    path.chmod(0o755)
"""
# The stand-in for the collector's builder: it generates a go.mod that ours must replace.
BUILDER = """\
#!/bin/sh
mkdir -p ./otelcol-pbmon && echo generated > ./otelcol-pbmon/go.mod
"""


class Workshop:
    """A cache of its own and a `go` that does as told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = directory / "cache"
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(self.cache)}
        self.environment["PATH"] = f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
        (directory / "bin").mkdir()
        self.go()

    def go(self, status: int = 0, sleep: float = 0.0) -> None:
        path = self.directory / "bin" / "go"
        text = GO.format(
            python=sys.executable,
            calls=str(self.directory / "calls"),
            status=status,
            sleep=sleep,
            builder=BUILDER,
        )
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """The builds."""
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith("build ")]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.stack", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate()
        return process.returncode, output

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in (self.cache / "pbmon" / "stack").glob(".*.part"))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_two_at_once_build_once(workshop: Workshop) -> None:
    workshop.go(sleep=1.0)
    both = [workshop.start("build", "jaeger") for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(workshop.calls()) == 1
    assert sorted("built in" in output for output in outputs) == [False, True]
    assert sorted("built by another process" in output for output in outputs) == [False, True]
    status, path = workshop.run("path", "jaeger")
    assert status == 0
    assert os.access(path.strip(), os.X_OK)
    assert workshop.leftovers() == []


def test_it_is_built_once_and_by_the_committed_pins(workshop: Workshop) -> None:
    assert workshop.run("build")[0] == 0
    calls = workshop.calls()
    # The collector comes in two steps, builder and program.
    assert len(calls) == len(PROGRAMS) + 1
    for call in calls:
        assert call.startswith("build -mod=readonly -buildvcs=false -trimpath ")
        assert "-ldflags=-s -w -o " in call
    [prometheus] = [call for call in calls if call.endswith("cmd/promtool")]
    assert "-tags=remove_all_sd" in prometheus
    status, output = workshop.run("build")
    assert status == 0
    assert output.count(": there") == len(PROGRAMS)
    assert workshop.calls() == calls


def test_list_and_path_tell_what_is_there(workshop: Workshop) -> None:
    status, output = workshop.run("path", "promtool")
    assert status == 1
    assert f"prometheus {PROMETHEUS.version} is not built: run `make stack`" in output
    assert workshop.run("list")[1].count("not built") == len(PROGRAMS)
    assert workshop.run("build", "promtool")[0] == 0
    status, output = workshop.run("path", "promtool")
    assert status == 0
    assert Path(output.strip()).name == "promtool"
    assert Path(output.strip()).parent.parent == workshop.cache / "pbmon" / "stack"
    assert workshop.run("list")[1].count("not built") == len(PROGRAMS) - 1
    status, output = workshop.run("build", "grafana")
    assert status == 2
    assert (
        "no program is called 'grafana'; known: collector, prometheus, alertmanager, jaeger"
        in output
    )


def test_a_failed_build_shows_gos_words_and_leaves_nothing(workshop: Workshop) -> None:
    workshop.go(status=1)
    status, output = workshop.run("build", "jaeger")
    assert status == 1
    assert "`go build` failed with status 1" in output
    assert "checksum mismatch" in output
    assert workshop.leftovers() == []
    assert workshop.run("path", "jaeger")[0] == 1


def test_without_go_the_remedy_is_named(workshop: Workshop) -> None:
    workshop.environment["PATH"] = str(workshop.directory)
    status, output = workshop.run("build", "collector")
    assert status == 1
    [line] = output.splitlines()
    assert "`go` is not on PATH. Install Go 1." in line
    assert "make stack" in line


def test_what_a_killed_build_left_is_swept_up(workshop: Workshop) -> None:
    stack = workshop.cache / "pbmon" / "stack"
    (stack / ".jaeger-dead.part" / "out").mkdir(parents=True)
    (stack / ".prometheus-busy.part").mkdir()  # not ours to sweep: another lock
    assert workshop.run("build", "jaeger")[0] == 0
    assert workshop.leftovers() == [".prometheus-busy.part"]


def test_a_damaged_build_is_made_again(workshop: Workshop) -> None:
    assert workshop.run("build", "promtool")[0] == 0
    Path(workshop.run("path", "promtool")[1].strip()).unlink()
    assert workshop.run("path", "prometheus")[0] == 1
    assert workshop.run("build", "prometheus")[0] == 0
    assert workshop.run("path", "promtool")[0] == 0


def test_the_collectors_sources_get_our_pins(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the builder writes as go.mod is replaced before anything is compiled."""
    monkeypatch.setenv("PATH", workshop.environment["PATH"])
    (tmp_path / "aside" / "out").mkdir(parents=True)
    build._collector_steps(COLLECTOR, tmp_path / "aside", tmp_path / "aside" / "out", print)
    generated = tmp_path / "aside" / "otelcol-pbmon" / "go.mod"
    assert generated.read_bytes() == (COLLECTOR.module / "go.mod").read_bytes()


def test_what_a_module_embeds_and_lacks_is_added_to_a_copy(workshop: Workshop) -> None:
    assert workshop.run("build", "amtool")[0] == 0
    main, page, go_mod = (workshop.directory / "completed").read_text().split("\n", 2)
    assert (main, page) == ("main.go", "ui/app/dist/index.html")
    pins, replaced = go_mod.rsplit("\nreplace ", 1)
    assert pins == go_mod_of(ALERTMANAGER)
    assert replaced.startswith(f"{ALERTMANAGER.upstream} => {workshop.cache}")
    assert [path.name for path in (workshop.directory / "cached source").iterdir()] == ["main.go"]


def test_other_stubs_are_another_build() -> None:
    other = dataclasses.replace(ALERTMANAGER, stubs=(("ui/app/dist/index.html", "other"),))
    assert other.fingerprint() != ALERTMANAGER.fingerprint()


def test_the_manifest_and_its_pins_agree(tmp_path: Path) -> None:
    go_mod = COLLECTOR.module / "go.mod"
    build._check_pins(programs.MANIFEST, go_mod)
    changed = tmp_path / "builder.yaml"
    text = programs.MANIFEST.read_text(encoding="utf-8")
    changed.write_text(text.replace("otlpreceiver v0.161.0", "otlpreceiver v0.162.0"))
    with pytest.raises(build.BuildError, match=r"differ: .*otlpreceiver v0\.162\.0"):
        build._check_pins(changed, go_mod)


@pytest.mark.parametrize(
    ("program", "pin"),
    [
        (COLLECTOR, "go.opentelemetry.io/collector/otelcol v0.161.0"),
        (PROMETHEUS, "github.com/prometheus/prometheus v0.316.0"),
        (ALERTMANAGER, "github.com/prometheus/alertmanager v0.34.2"),
        (JAEGER, "github.com/jaegertracing/jaeger v1.76.0"),
    ],
    ids=lambda value: value.name if isinstance(value, Program) else "",
)
def test_the_named_version_is_the_pinned_one(program: Program, pin: str) -> None:
    assert re.search(rf"^(require )?\s*{re.escape(pin)}$", go_mod_of(program), re.MULTILINE)
    number = pin.split(" v")[1]
    # Prometheus numbers its module 0.316.0 where the program is 3.16.0.
    wanted = re.sub(r"^0\.(\d)(\d\d)\.", r"\1.\2.", number) if program is PROMETHEUS else number
    assert program.version == wanted


def test_a_changed_pin_is_a_new_directory(tmp_path: Path) -> None:
    """And a changed comment in the manifest is not."""
    before = COLLECTOR.fingerprint()
    assert re.fullmatch(r"[0-9a-f]{12}", before)
    text = programs.MANIFEST.read_text(encoding="utf-8")
    manifest = tmp_path / "builder.yaml"
    program = dataclasses.replace(COLLECTOR, manifest=manifest)
    manifest.write_text(f"# another comment\n{text}")
    assert program.fingerprint() == before
    manifest.write_text(text.replace("version: 0.161.0", "version: 0.161.1"))
    assert program.fingerprint() != before


def go_mod_of(program: Program) -> str:
    return (program.module / "go.mod").read_text(encoding="utf-8")
