"""`pbmon dashboards`: list the Grafana dashboards, or write them to a directory."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pbmon.cli import assets

NAME = "dashboards"
HELP = "list or export the Grafana dashboards"

ASSETS = "grafana/dashboards"


class Refusal(Exception):
    """The command can't do what was asked; the message is the one line to show."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show each dashboard's file, uid and title")
    export = actions.add_parser("export", help="write the dashboards' JSON to a directory")
    export.add_argument("directory", type=_path, metavar="DIR", help="made if it doesn't exist")
    export.add_argument(
        "--force", action="store_true", help="overwrite files whose content differs"
    )


def run(args: argparse.Namespace) -> int:
    try:
        dashboards = _carried()
        lines = (
            _listed(dashboards)
            if args.action == "list"
            else _exported(dashboards, args.directory, force=args.force)
        )
        for line in lines:
            print(line)
    except (Refusal, assets.AssetsMissing) as refusal:
        print(f"pbmon dashboards: {refusal}", file=sys.stderr)
        return 1
    return 0


def _path(text: str) -> Path:
    """An empty DIR comes from a shell variable that isn't set; it would mean the current one."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return Path(text)


def _carried() -> dict[str, bytes]:
    source = assets.directory(ASSETS)
    carried = {path.name: _content(path) for path in sorted(source.glob("*.json"))}
    if not carried:
        raise Refusal(f"{source}: holds no dashboard; install pbmon again")
    return {name: content for name, content in carried.items() if content is not None}


def _listed(dashboards: dict[str, bytes]) -> Iterator[str]:
    width = max(map(len, dashboards), default=0)
    for name, content in dashboards.items():
        dashboard = json.loads(content)
        yield f"{name:{width}}  {dashboard['uid']}  {dashboard['title']}"


def _exported(dashboards: dict[str, bytes], target: Path, *, force: bool) -> Iterator[str]:
    """Write all, or nothing if one file of other content is in the way."""
    _make(target)
    present = {name: _content(target / name) for name in dashboards}
    changed = [name for name, content in dashboards.items() if present[name] not in (None, content)]
    if changed and not force:
        paths = ", ".join(str(target / name) for name in changed)
        raise Refusal(f"{paths}: has other content; overwrite it with --force")
    for name, content in dashboards.items():
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
    """Whole or not at all: Grafana may be reading the directory."""
    aside = path.with_name(f".{path.name}.part")
    with _naming(path):
        try:
            aside.write_bytes(content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
