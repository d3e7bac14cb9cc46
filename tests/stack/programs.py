"""The programs of the stack: what each is, which version, and where its binary lies.

A build lives in the user's cache under a name made from everything that decides its content,
so a changed pin is a new directory and never a stale binary.
"""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE / "modules"
MANIFEST = HERE.parents[1] / "collector-config" / "builder.yaml"
REMEDY = "run `make stack` (needs Go; several minutes the first time)"


class MissingProgram(Exception):
    """A program of the stack is not built, or not installed, on this machine."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Program:
    """One Go module of `modules/` and the binaries that come from it.

    packages: what `go build` gets; empty for the collector, whose sources are generated.
    stubs: path below the packages' module -> text, of files that it embeds and doesn't carry.
    """

    name: str
    version: str
    binaries: tuple[str, ...]
    packages: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    manifest: Path | None = None
    stubs: tuple[tuple[str, str], ...] = ()

    @property
    def upstream(self) -> str:
        """The module that the packages are of."""
        return "/".join(self.packages[0].split("/")[:3])

    @property
    def module(self) -> Path:
        return MODULES / self.name

    @property
    def directory(self) -> Path:
        """Where the finished build lies, or will lie."""
        return cache() / f"{self.name}-{self.version}-{self.fingerprint()}"

    def fingerprint(self) -> str:
        """Twelve hex digits over the pins, the manifest, the flags and the platform."""
        digest = hashlib.sha256()
        stubs = (word for stub in self.stubs for word in stub)
        for part in (*self.flags, *self.packages, platform.system(), platform.machine(), *stubs):
            digest.update(part.encode() + b"\0")
        for name in ("go.mod", "go.sum"):
            digest.update((self.module / name).read_bytes())
        if self.manifest is not None:
            digest.update((MODULES / "builder" / "go.sum").read_bytes())
            digest.update(_without_comments(self.manifest).encode())
        return digest.hexdigest()[:12]

    def is_built(self) -> bool:
        return all((self.directory / binary).is_file() for binary in self.binaries)


COLLECTOR = Program(
    name="collector",
    version="0.161.0",
    binaries=("otelcol-pbmon",),
    flags=("-trimpath", "-ldflags=-s -w"),
    manifest=MANIFEST,
)
PROMETHEUS = Program(
    name="prometheus",
    version="3.16.0",
    binaries=("prometheus", "promtool"),
    packages=(
        "github.com/prometheus/prometheus/cmd/prometheus",
        "github.com/prometheus/prometheus/cmd/promtool",
    ),
    # Without the cloud providers' service discovery: half the build time.
    flags=("-trimpath", "-tags=remove_all_sd", "-ldflags=-s -w"),
)
JAEGER = Program(
    name="jaeger",
    version="1.76.0",  # the module's number; it is the tag of a Jaeger v2 release
    binaries=("jaeger",),
    packages=("github.com/jaegertracing/jaeger/cmd/jaeger",),
    flags=("-trimpath", "-ldflags=-s -w"),
)
ALERTMANAGER = Program(
    name="alertmanager",
    version="0.34.2",
    binaries=("alertmanager", "amtool"),
    packages=(
        "github.com/prometheus/alertmanager/cmd/alertmanager",
        "github.com/prometheus/alertmanager/cmd/amtool",
    ),
    flags=("-trimpath", "-ldflags=-s -w"),
    # Its page is made by npm for a release and isn't in the module.
    stubs=(("ui/app/dist/index.html", "<!doctype html><title>Alertmanager</title>\n"),),
)
# In the order in which they are built: the quickest and most wanted first.
PROGRAMS = (COLLECTOR, PROMETHEUS, ALERTMANAGER, JAEGER)


def cache() -> Path:
    """The directory of all builds, `$XDG_CACHE_HOME/pbmon/stack` or under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "pbmon" / "stack"


def named(name: str) -> Program:
    """The program called `name`, or the one that has a binary of that name."""
    for program in PROGRAMS:
        if name == program.name or name in program.binaries:
            return program
    known = ", ".join(program.name for program in PROGRAMS)
    raise KeyError(f"no program is called {name!r}; known: {known}")


def binary(name: str) -> Path:
    """The path of a built binary; `name` is a program's or a binary's.

    Raises MissingProgram if it is not built.
    """
    program = named(name)
    if not program.is_built():
        raise MissingProgram(
            program.name, f"{program.name} {program.version} is not built: {REMEDY}"
        )
    file = name if name in program.binaries else program.binaries[0]
    return program.directory / file


def _without_comments(manifest: Path) -> str:
    """A comment changed in the manifest must not cost anybody a rebuild."""
    lines = manifest.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
