"""The locked lists: complete, hashed, in step with pyproject.toml, the same on every machine."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTS = ("demo", "test", "bench", "otel-1.45.2")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
GROUPS = {"demo": ("demo",), "test": ("demo", "test"), "bench": ("demo", "test", "bench")}


@dataclass(frozen=True)
class Pin:
    name: str
    version: str
    marker: Marker | None
    hashes: int

    def applies(self, python: str) -> bool:
        return self.marker is None or self.marker.evaluate(on(python))


def on(python: str) -> dict[str, str]:
    """A Linux machine with this Python."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
    }


def text(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> list[Pin]:
    found = []
    for entry in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n?", "", text(name))):
        if entry.strip():
            stated = Requirement(re.split(r"\s\\\n|\s--hash", entry, maxsplit=1)[0].strip())
            (version,) = stated.specifier
            assert version.operator == "==", entry
            found.append(
                Pin(
                    canonicalize_name(stated.name),
                    version.version,
                    stated.marker,
                    len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)),
                )
            )
    return found


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def wanted(groups: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for: the dependencies and these groups, with what they include."""
    content = project()
    lines = list(content["project"]["dependencies"])
    open_groups = list(groups)
    while open_groups:
        for entry in content["dependency-groups"][open_groups.pop()]:
            if isinstance(entry, dict):
                open_groups.append(entry["include-group"])
            else:
                lines.append(entry)
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", LISTS)
def test_every_pin_has_hashes(name):
    found = pins(name)
    assert len(found) > 10
    assert not [pin for pin in found if pin.hashes == 0]


@pytest.mark.parametrize("name", LISTS)
def test_no_address_and_no_path(name):
    """A list must do on any machine, with any index."""
    assert "://" not in text(name)
    assert not re.findall(r"(?<![\w.])/\w+", text(name))
    assert not re.findall(r"--(?:extra-)?index-url|--find-links|-i\s", text(name))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ["demo", "test"])
def test_pyproject_is_met(name, python):
    locked: dict[str, str] = {}
    for pin in pins(name):
        if pin.applies(python):
            assert pin.name not in locked, f"{pin.name} is pinned twice for {python}"
            locked[pin.name] = pin.version
    for requirement in wanted(GROUPS[name]):
        if requirement.marker is None or requirement.marker.evaluate(on(python)):
            version = locked.get(canonicalize_name(requirement.name))
            assert version, f"{requirement} is not in requirements/{name}.txt: run `make lock`"
            assert requirement.specifier.contains(version, prereleases=True), (
                f"{requirement} and {version} of requirements/{name}.txt differ: run `make lock`"
            )


def test_demo_is_a_part_of_test():
    def keys(name: str) -> set[tuple[str, str, str]]:
        return {(pin.name, pin.version, str(pin.marker)) for pin in pins(name)}

    assert keys("demo") <= keys("test")


@pytest.mark.parametrize("name", ["demo", "test"])
def test_nothing_that_a_pin_needs_is_left_out(name):
    """pip installs them with --no-deps: what is not in the list would be missing."""
    applying = {pin.name: pin for pin in pins(name) if pin.applies(on_this())}
    looked_at = 0
    for pin in applying.values():
        try:
            distribution = metadata.distribution(pin.name)
        except metadata.PackageNotFoundError:
            continue
        if distribution.version != pin.version:
            continue
        looked_at += 1
        for line in distribution.requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) in applying, f"{pin.name} needs {need}"
    if not looked_at:
        pytest.skip("none of the locked versions is installed here; `make test` installs them")


def on_this() -> str:
    return "{}.{}".format(*sys.version_info)


def test_newest_opentelemetry_is_of_one_release():
    versions = {pin.name: pin.version for pin in pins("otel-1.45.2")}
    assert versions["opentelemetry-api"] == versions["opentelemetry-sdk"] == "1.45.2"
    assert set(versions.values()) == {"1.45.2", "0.66b2"}
    assert Path(ROOT / "requirements" / "otel-1.45.2.in").is_file()
