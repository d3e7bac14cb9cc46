"""The store's times, µs since the epoch, as people and other programs read them. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def instant(at: int) -> datetime:
    """Aware, in UTC. Raises OverflowError outside the calendar."""
    return EPOCH + timedelta(microseconds=at)


def rfc3339(at: int, precision: str = "microseconds") -> str:
    """In UTC: `2026-11-25T21:58:00.000001Z`. precision: as of datetime.isoformat."""
    return instant(at).isoformat(timespec=precision).replace("+00:00", "Z")
