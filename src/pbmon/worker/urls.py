"""Values of settings that may be said as `env:NAME`, and the store's place."""

from __future__ import annotations

import os
from pathlib import Path

from pbmon import signals
from pbmon.settings import Settings
from pbmon.spool import directory
from pbmon.spool.directory import Home

_STORES = "store"


def store_url(settings: Settings, home: Home) -> str:
    """Of the store in force: as set, or a file of the service in its state directory."""
    file = default_file(home.state_directory, home.service)
    return url_of("store_url", settings.store_url) or f"sqlite:///{file}"


def url_of(setting: str, url: str | None) -> str | None:
    """A URL that may be said as `env:NAME`."""
    if url is None or not url.startswith("env:"):
        return url
    name = url.removeprefix("env:")
    found = os.environ.get(name) or None
    if found is None:
        signals.tell(
            setting,
            "pbmon: %s names the variable %s, which is not set; set it. Until then it is as if "
            "%s were not set.",
            setting, name, setting,
        )  # fmt: skip
    return found


def default_file(state_directory: Path, service: str) -> Path:
    return state_directory / _STORES / f"{directory.slug(service)}.sqlite3"
