"""The settings file, read again while the process runs.

A look costs a few stats. What is new is read once the file has stood still between two looks, so
that one which is being written is not taken for what its owner wants.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType

from pbmon import runtime, signals, sources
from pbmon.settings import FIELDS, RELOADING, Settings
from pbmon.sources import Problem

LOOK_S = 1.0
_EMPTY = 0

Resolve = Callable[[], tuple[Settings, list[Problem]]]
_log = logging.getLogger("pbmon")


class Reload:
    """look() belongs into a thread that comes by often.

    directory: where the file is looked for. resolve: the settings as they would be now. apply:
    puts changed ones in force.
    """

    def __init__(
        self, directory: Path, resolve: Resolve, apply: Callable[[Settings], None]
    ) -> None:
        self._resolve = resolve
        self._apply = apply
        self._paths = sources.candidates(os.environ, directory)
        self._looked_s = 0.0
        self._read = self._seen = self._stamps()

    @property
    def has_file(self) -> bool:
        """Whether there was a file at the last look."""
        return any(self._seen)

    def _stamps(self) -> tuple[sources.Stamp | None, ...]:
        return tuple(map(sources.stamp, self._paths))

    def look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S or not runtime.active.settings.reload:
            return
        self._looked_s = now_s
        before, self._seen = self._seen, self._stamps()
        # Noted only once it is in force: a child forked meanwhile, which has half of it, does it
        # again.
        if self._seen == before != self._read:
            if not self._tell_lost():
                self._take()
            self._read = before

    def _tell_lost(self) -> bool:
        """Whether the file that counts is gone, or has nothing in it any more."""
        used = {*runtime.active.settings.sources.values()}
        for path, stamp in zip(self._paths, self._seen, strict=True):
            if str(path) in used and (stamp is None or stamp[2] == _EMPTY):
                signals.tell(
                    f"reload:{path}",
                    "pbmon: %s %s; what it said stays in force until the process ends",
                    path, "is gone" if stamp is None else "is empty",
                )  # fmt: skip
                return True
        return False

    def _take(self) -> None:
        found, problems = self._resolve()
        ours = {sources.OF_FILE, *map(str, self._paths)}
        problems = [problem for problem in problems if problem.source in ours]
        for problem in problems:
            signals.tell(
                f"reload:{problem}", "%s; what was in force before stays so", _without_end(problem)
            )
        if any(problem.source == sources.OF_FILE for problem in problems):
            return
        active = runtime.active.settings
        changed = list(_changed(active, found, {problem.name for problem in problems}))
        taken = [name for name in changed if name in RELOADING]
        if taken:
            self._apply(_with(active, found, taken))
            _log.info("pbmon took from its changed settings: %s", ", ".join(taken))
        if rest := [name for name in changed if name not in RELOADING]:
            signals.tell(
                f"restart:{rest}",
                "pbmon: %s changed in the settings file and can't change while the process runs; "
                "restart it",
                ", ".join(rest),
            )


def _without_end(problem: Problem) -> str:
    return str(problem).removesuffix("; it is ignored").removesuffix(" It is ignored")


def _changed(before: Settings, after: Settings, wrong: set[str]) -> Iterable[str]:
    """The settings that differ, without those that can't be used."""
    for name in FIELDS:
        if name not in wrong and getattr(before, name) != getattr(after, name):
            yield name


def _with(settings: Settings, found: Settings, names: Iterable[str]) -> Settings:
    """The settings with these of the others, and with where they came from."""
    named = dict(settings.sources)
    for name in names:
        named.pop(name, None)
        if name in found.sources:
            named[name] = found.sources[name]
    values = {name: getattr(found, name) for name in names}
    return dataclasses.replace(settings, **values, sources=MappingProxyType(named))
