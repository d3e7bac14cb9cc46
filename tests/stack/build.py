"""Build what is missing of the stack, once, safely beside others who do the same."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.stack import programs
from tests.stack.programs import Program

# -mod=readonly: the committed go.mod and go.sum decide, and a difference is an error.
GO_BUILD = ("go", "build", "-mod=readonly", "-buildvcs=false")
BUILDER = "go.opentelemetry.io/collector/cmd/builder"
SOURCES = "otelcol-pbmon"  # dist.output_path of the manifest
HEARTBEAT_S = 30.0
TAIL_LINES = 25

Say = Callable[[str], None]


class BuildError(Exception):
    """A build failed; the message says why and what to do."""


def build(program: Program, say: Say = print) -> Path:
    """Build `program` unless it is there; return its directory."""
    if program.is_built():
        say(f"{program.name} {program.version}: there")
        return program.directory
    _require_go(program)
    with _locked(program):
        if program.is_built():
            say(f"{program.name} {program.version}: there, built by another process meanwhile")
            return program.directory
        started = time.monotonic()
        say(f"{program.name} {program.version}: building {', '.join(program.binaries)} ...")
        _build_aside(program, say)
        say(f"{program.name} {program.version}: built in {time.monotonic() - started:.0f} s")
    return program.directory


def _require_go(program: Program) -> None:
    if shutil.which("go") is None:
        wanted = _go_version(program)
        raise BuildError(
            f"{program.name} can't be built: the program `go` is not on PATH. "
            f"Install Go {wanted} or newer, then run `make stack` again."
        )


def _go_version(program: Program) -> str:
    text = (program.module / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^go (\S+)", text, re.MULTILINE)
    return found.group(1) if found else "1.26"


@contextmanager
def _locked(program: Program) -> Iterator[None]:
    """One builder per program: the second waits and then finds the work done."""
    root = programs.cache()
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f".{program.name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_aside(program: Program, say: Say) -> None:
    """Build in a directory beside the final one and rename, so that it is whole or absent."""
    target = program.directory
    for leftover in target.parent.glob(f".{program.name}-*.part"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a build that was killed; we hold the lock
    aside = Path(tempfile.mkdtemp(prefix=f".{program.name}-", suffix=".part", dir=target.parent))
    try:
        out = aside / "out"
        out.mkdir()
        steps = _collector_steps if program.manifest is not None else _module_steps
        steps(program, aside, out, say)
        absent = [name for name in program.binaries if not (out / name).is_file()]
        if absent:
            raise BuildError(f"{program.name}: the build made no {', '.join(absent)}")
        shutil.rmtree(target, ignore_errors=True)  # there, but not whole: somebody deleted a file
        os.rename(out, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _module_steps(program: Program, aside: Path, out: Path, say: Say) -> None:
    module = _completed(program, aside, say) if program.stubs else program.module
    command = [*GO_BUILD, *program.flags, "-o", f"{out}{os.sep}", *program.packages]
    _run(command, module, aside, say)


def _completed(program: Program, aside: Path, say: Say) -> Path:
    """A module like the program's own, whose upstream is a copy with the stubs in it: Go lets
    nothing be added to the sources in its cache."""
    _run(["go", "mod", "download", program.upstream], program.module, aside, say)
    _run(["go", "list", "-m", "-f", "{{.Dir}}", program.upstream], program.module, aside, say)
    cached = (aside / "log").read_text(encoding="utf-8").splitlines()[-1]
    source = aside / "source"
    # copyfile: what is in the cache may not be written to.
    shutil.copytree(cached, source, copy_function=shutil.copyfile)
    for path in (source, *source.rglob("*/")):
        path.chmod(0o755)
    for name, text in program.stubs:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    module = aside / "module"
    module.mkdir()
    shutil.copyfile(program.module / "go.sum", module / "go.sum")
    pins = (program.module / "go.mod").read_text(encoding="utf-8")
    replaced = f"{pins}\nreplace {program.upstream} => {source}\n"
    (module / "go.mod").write_text(replaced, encoding="utf-8")
    return module


def _collector_steps(program: Program, aside: Path, out: Path, say: Say) -> None:
    """Generate the collector's sources from its manifest, then build them with our pins."""
    manifest = program.manifest
    assert manifest is not None
    _check_pins(manifest, program.module / "go.mod")
    builder = aside / "builder"
    module = programs.MODULES / "builder"
    _run([*GO_BUILD, *program.flags, "-o", str(builder), BUILDER], module, aside, say)
    generate = [str(builder), "--config", str(manifest), "--skip-compilation", "--skip-get-modules"]
    _run(generate, aside, aside, say)
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(program.module / name, aside / SOURCES / name)
    command = [*GO_BUILD, *program.flags, "-o", str(out / program.binaries[0]), "."]
    _run(command, aside / SOURCES, aside, say)


def _check_pins(manifest: Path, go_mod: Path) -> None:
    """Refuse a manifest that asks for what the committed go.mod doesn't have."""
    wanted = re.findall(
        r"^\s*- gomod: *(\S+ v\S+)", manifest.read_text(encoding="utf-8"), re.MULTILINE
    )
    pinned = {line.strip() for line in go_mod.read_text(encoding="utf-8").splitlines()}
    unpinned = [module for module in wanted if module not in pinned]
    if unpinned or not wanted:
        raise BuildError(
            f"{manifest.name} and the committed go.mod differ: {', '.join(unpinned) or 'no gomod'}."
            " tests/stack/modules/README.md says how to renew the pins."
        )


def _run(command: Sequence[str], cwd: Path, aside: Path, say: Say) -> None:
    """Run one step quietly; on failure show the end of what it printed."""
    log = aside / "log"
    # No C compiler is needed, and no go.work above us may add to the pins.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, say)
        finally:
            if process.poll() is None:  # interrupted
                process.terminate()
                process.wait()
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        shown = "\n".join(f"  {line}" for line in lines)
        step = " ".join(Path(part).name for part in command[:2])
        raise BuildError(f"`{step}` failed with status {process.returncode}:\n{shown}")


def _wait(process: subprocess.Popen[bytes], say: Say) -> None:
    started = time.monotonic()
    while True:
        try:
            process.wait(timeout=HEARTBEAT_S)
            return
        except subprocess.TimeoutExpired:
            say(f"  still building ({time.monotonic() - started:.0f} s) ...")
