"""The store's place."""

from __future__ import annotations

from pathlib import Path

from pbmon.outbound import url_of
from pbmon.settings import Settings
from pbmon.spool import directory
from pbmon.spool.directory import Home

_STORES = "store"


def store_url(settings: Settings, home: Home) -> str:
    """Of the store in force: as set, or a file of the service in its state directory."""
    file = default_file(home.state_directory, home.service)
    return url_of("store_url", settings.store_url) or f"sqlite:///{file}"


def outbox_url(settings: Settings, store: str) -> str | None:
    """Of the database of the outbox: as set, or the store, if that is PostgreSQL."""
    return url_of("outbox_url", settings.outbox_url) or (
        store if store.startswith("postgres") else None
    )


def default_file(state_directory: Path, service: str) -> Path:
    return state_directory / _STORES / f"{directory.slug(service)}.sqlite3"
