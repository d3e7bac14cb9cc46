"""Writing files that pbmon carries to a directory of yours, whole or not at all."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pbmon.cli import assets


class Refusal(Exception):
    """The command can't do what was asked; the message is the one line to show."""


def configure(export: argparse.ArgumentParser) -> None:
    """What every `export` takes: DIR and --force."""
    export.add_argument("directory", type=_path, metavar="DIR", help="made if it doesn't exist")
    export.add_argument(
        "--force", action="store_true", help="overwrite files whose content differs"
    )


def _path(text: str) -> Path:
    """An empty DIR comes from a shell variable that isn't set; it would mean the current one."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return Path(text)


def carried(directory: str, pattern: str, what: str) -> dict[str, bytes]:
    """The files of the assets called `directory`, by name; what: one of them, for the message."""
    source = assets.directory(directory)
    found = {path.name: _content(path) for path in sorted(source.glob(pattern))}
    if not found:
        raise Refusal(f"{source}: holds no {what}; install pbmon again")
    return {name: content for name, content in found.items() if content is not None}


def exported(files: dict[str, bytes], target: Path, *, force: bool) -> Iterator[str]:
    """Write all, or nothing if one file of other content is in the way."""
    _make(target)
    present = {name: _content(target / name) for name in files}
    changed = [name for name, content in files.items() if present[name] not in (None, content)]
    if changed and not force:
        paths = ", ".join(str(target / name) for name in changed)
        raise Refusal(f"{paths}: has other content; overwrite it with --force")
    for name, content in files.items():
        if present[name] == content:
            yield f"unchanged {target / name}"
        else:
            _write(target / name, content)
            yield f"wrote {target / name}"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn a fault of the file system into one line about `path`."""
    try:
        yield
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror or error}") from None


def _make(target: Path) -> None:
    with _naming(target):
        try:
            target.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise Refusal(f"{target}: is not a directory") from None


def _content(path: Path) -> bytes | None:
    with _naming(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a server may be reading the directory."""
    aside = path.with_name(f".{path.name}.part")
    with _naming(path):
        try:
            aside.write_bytes(content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
