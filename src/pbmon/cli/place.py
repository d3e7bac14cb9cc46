"""Where a command finds the events of this service: state directory and store."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from pbmon import privacy, settings
from pbmon.settings import Settings
from pbmon.sources import Problem
from pbmon.spool import journal
from pbmon.spool.directory import Home, UnusableError
from pbmon.store.access import StoreError
from pbmon.telemetry import providers
from pbmon.worker.urls import store_url


@dataclass(frozen=True, slots=True)
class Place:
    """url: of the store in force. problems: with the settings, which were told."""

    settings: Settings
    home: Home
    url: str
    problems: tuple[Problem, ...]

    @property
    def shown(self) -> str:
        """The store's URL as messages may show it."""
        return privacy.mask_url(self.url)


def in_place(do: Callable[[Place], int], *, failure: int = 1) -> int:
    """The exit code of do(). A setting, a directory or a store that can't be used is one line, and
    the latter two a failure."""
    resolved, problems = settings.resolve()
    for problem in problems:
        print(problem, file=sys.stderr)
    try:
        home = journal.open_home(resolved.state_dir, providers.service_name(resolved))
    except UnusableError as error:
        print(f"pbmon: no state directory: {error}", file=sys.stderr)
        return failure
    place = Place(resolved, home, store_url(resolved, home), tuple(problems))
    try:
        return do(place)
    except StoreError as error:
        print(f"pbmon: the store {place.shown} {error}", file=sys.stderr)
        return failure
