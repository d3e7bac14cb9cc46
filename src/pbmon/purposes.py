"""What people are asked for: the purposes, the legal basis of each, the version of the text that
they agree to; and what follows from their decisions. Pure. Times are µs since the epoch, UTC.

- A withdrawal governs everything that is not stored yet, whenever it occurred.
- A grant governs what occurs from then on; it revives nothing from before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

ANALYTICS = "analytics"
SHARING = "sharing"
PURPOSES = (ANALYTICS, SHARING)
BASES = ("opt-in", "opt-out", "not-required")

MAX_VERSION = 50
"""Characters of a version."""


class Decision(NamedTuple):
    """A person's last word on a purpose.

    since: of a grant, from when on what occurs may be kept. withdrawn_at: the last time, if ever.
    """

    granted: bool
    decided_at: int
    version: str | None = None
    since: int = 0
    withdrawn_at: int | None = None


class Terms(NamedTuple):
    """Of a purpose. version: an older grant counts as not asked."""

    basis: str
    version: str | None = None

    def is_agreed(self, decision: Decision | None) -> bool:
        """Whether the person has agreed to what is asked for now."""
        return (
            decision is not None
            and decision.granted
            and (self.version is None or reaches(decision.version, self.version))
        )

    def may(self, decision: Decision | None, at: int, consent: bool | None = None) -> bool:
        """Whether what occurred at that time may be kept. consent: what the call itself said."""
        if consent is False:
            return False
        if decision is None:
            return consent is True or self.basis != "opt-in"
        if consent is True:  # and they may have thought better of it since
            return decision.withdrawn_at is None or at > decision.withdrawn_at
        if not decision.granted:
            return False
        return at >= decision.since and (self.basis != "opt-in" or self.is_agreed(decision))

    def follow(
        self, last: Decision | None, granted: bool, at: int, version: str | None
    ) -> Decision:
        """The last word, where one more comes in; of two at the same time the refusal is it."""
        if last is not None and (at < last.decided_at or (at == last.decided_at and granted)):
            return last if granted else _interrupted(last, at)
        withdrawn_at = last.withdrawn_at if last is not None else None
        if not granted:
            return Decision(False, at, None, at, at)
        since = at
        if last is None:
            since = at if self.basis == "opt-in" else 0
        elif self.is_agreed(last) or (last.granted and self.basis != "opt-in"):
            since = last.since  # they go on agreeing
        return Decision(True, at, version, since, withdrawn_at)


def _interrupted(last: Decision, at: int) -> Decision:
    """By a refusal of that time, which is heard of late."""
    since = last.decided_at if last.granted and last.since <= at else last.since
    return last._replace(since=since, withdrawn_at=max(at, last.withdrawn_at or at))


def reaches(version: str | None, wanted: str) -> bool:
    """Whether a version is the wanted one or a later one: 2026-11 after 2026-9, v10 after v9."""
    return version is not None and _order(version) >= _order(wanted)


def _order(version: str) -> list[tuple[int, str]]:
    parts = re.findall(r"[0-9]+|[^0-9]+", version)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts]


class ConsentStatus(NamedTuple):
    """How it stands with a person and a purpose.

    decision: granted (True), refused (False), never asked (None). version: of the text that they
    agreed to; required: the one that the setting `consent_version` asks for. decided_at: aware,
    UTC. is_kept: whether what they do now is kept (analytics) or leaves (sharing).
    """

    purpose: str
    basis: str
    decision: bool | None
    version: str | None
    required: str | None
    decided_at: datetime | None
    is_kept: bool


def terms_of(consent: Mapping[str, str], versions: Mapping[str, str]) -> dict[str, Terms]:
    """Purpose → terms, as the settings say them."""
    return {purpose: Terms(consent[purpose], versions.get(purpose)) for purpose in PURPOSES}
