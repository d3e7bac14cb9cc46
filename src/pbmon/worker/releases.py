"""The mark of a release that was deployed, noted by the first of its processes that leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pbmon import catalog, runtime

if TYPE_CHECKING:
    from pbmon.store.jobs import Runs


def note(runs: Runs, release: str, age_s: float) -> bool:
    """Note that it is deployed, and tell it; whether that was new. age_s: for which it runs here.
    Raises StoreError."""
    from pbmon.store import marks

    mark = runs.write(lambda c: marks.note_release(c, release, round(age_s * 1e6)))
    if mark is None:
        return False
    found = runs.read(lambda c: marks.deployment(c, release))
    previous = found.before.name if found is not None and found.before is not None else None
    record = catalog.RELEASE_DEPLOYED
    values = dict(zip(record.fields, (release, previous), strict=True))
    text = f"{record.message} release={release} previous={previous or '-'}"
    runtime.logger("marks").info("%s", text, extra=values)
    return True
