"""The wheel, built once per session, and an environment that has the wheel and no source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installation:
    """An environment in which pbmon comes from the wheel."""

    directory: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the environment in an empty directory, with nothing inherited."""
        home = self.directory.parent / "home"
        home.mkdir(exist_ok=True)
        script, *arguments = command
        return subprocess.run(
            [str(self.directory / "bin" / script), *arguments],
            cwd=home,
            check=False,
            env={"HOME": str(home), "PATH": os.defpath, "LC_ALL": "C.UTF-8", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def evaluate(self, code: str) -> str:
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make` and pip build it, without the network."""
    target = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The dependencies come from this environment's site-packages by a .pth file.

    The .pth files in there, the editable pbmon's among them, are not followed from a .pth file.
    """
    directory = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    python = directory / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)),
            *("install", "--quiet", "--no-index", "--no-deps", str(wheel)),
        ],
        check=True,
    )
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return Installation(directory)
