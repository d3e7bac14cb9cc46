"""consent: what people have agreed to, as the application hears it from them."""

from __future__ import annotations

import time

from pbmon import identity, runtime
from pbmon.business import reading
from pbmon.business.refusals import refuse
from pbmon.moments import instant
from pbmon.parsing import is_version
from pbmon.purposes import MAX_VERSION, PURPOSES, ConsentStatus, Decision, Terms, terms_of
from pbmon.runtime import NOT_CONFIGURED, Verdict

_BAD_USER_ID = "user_id must have 1 to 255 characters"


class Consent:
    """What people have agreed to. A decision goes the way of the events and counts from where it
    is stored, for every process; each is kept with its time and its version, for good."""

    def grant(self, user_id: str | int, *purposes: str, version: str | None = None) -> Verdict:
        """This person agrees, to what is done from now on.

        user_id: the application's own id. purposes: analytics (events are kept in the store),
            sharing (they go to the destinations as well); both where none is named.
        version: of the text that they agreed to, 1 to 50 printable characters; the one of the
            setting `consent_version` if left out.

        Returns Accepted, or a falsy Refused: bad_user_id, bad_purpose, bad_version, or as track().
        Under strict a wrong value is raised as ValueError.
        """
        return _decide("consent.grant", user_id, purposes, granted=True, version=version)

    def withdraw(self, user_id: str | int, *purposes: str) -> Verdict:
        """This person does not agree, or not any more: likewise.

        It governs all that is not stored yet, whenever it occurred; of what is stored nothing goes
        to a destination any more. What is stored stays: deleting it is another request.
        """
        return _decide("consent.withdraw", user_id, purposes, granted=False, version=None)

    def status(self, user_id: str | int) -> dict[str, ConsentStatus]:
        """How it stands with a person: purpose → ConsentStatus.

        It has `decision` (True, False, None: never asked), `version` and `decided_at` of it, the
        `basis` in force, the version that is `required`, and `is_kept`: whether what they do now
        is kept, or leaves. As far as it is in the store: pbmon.flush() brings there what was just
        decided.

        Asks the store: never in the way of a request; in async code by asyncio.to_thread(). Raises
        ValueError for a user_id that is none; pbmon.StoreError, with the remedy, where the store
        can't be asked, and before configure().
        """
        known = identity.checked("user_id", user_id)
        if known is None:
            raise ValueError(f"pbmon.consent.status: {_BAD_USER_ID}")
        words = reading.store().decisions(known)
        settings = runtime.active.settings
        now = time.time_ns() // 1000
        return {
            purpose: status_of(purpose, terms, words, now)
            for purpose, terms in terms_of(settings.consent, settings.consent_version).items()
        }


consent = Consent()


def status_of(
    purpose: str, terms: Terms, words: dict[str, Decision | None] | None, now: int
) -> ConsentStatus:
    """words: purpose → last decision; none of somebody who was deleted."""
    word = words.get(purpose) if words is not None else None
    return ConsentStatus(
        purpose,
        terms.basis,
        word.granted if word is not None else None,
        word.version if word is not None else None,
        terms.version,
        instant(word.decided_at) if word is not None else None,
        words is not None and terms.may(word, now),
    )


def _decide(
    call: str,
    user_id: str | int,
    purposes: tuple[str, ...],
    *,
    granted: bool,
    version: str | None,
) -> Verdict:
    sink = runtime.active.events
    if sink is None:
        return NOT_CONFIGURED
    known = identity.checked("user_id", user_id)
    if version is not None and not isinstance(version, str):
        raise TypeError(f"version must be str, not {type(version).__name__}")
    if known is None:
        return refuse(call, "bad_user_id", _BAD_USER_ID, depth=3)
    if wrong := [purpose for purpose in purposes if purpose not in PURPOSES]:
        remedy = f"purpose {str(wrong[0])[:32]!r} is not one of {', '.join(PURPOSES)}"
        return refuse(call, "bad_purpose", remedy, depth=3)
    if version is not None and not is_version(version):
        remedy = f"version must have 1 to {MAX_VERSION} printable characters"
        return refuse(call, "bad_version", remedy, depth=3)
    current = runtime.active.settings.consent_version if granted else {}
    verdict: Verdict = runtime.ACCEPTED
    for purpose in purposes or PURPOSES:
        word = sink.decide(known, purpose, granted, version or current.get(purpose))
        verdict = word and verdict
    return verdict
