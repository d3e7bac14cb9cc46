"""consent: what people have agreed to, as the application hears it from them."""

from __future__ import annotations

from pbmon import identity, runtime
from pbmon.business.refusals import refuse
from pbmon.parsing import PURPOSES
from pbmon.runtime import NOT_CONFIGURED, Verdict


class Consent:
    """What people have agreed to. A decision goes the way of the events and counts from where it
    is stored, for every process; each is kept with its time."""

    def grant(self, user_id: str | int, *purposes: str) -> Verdict:
        """This person agrees.

        user_id: the application's own id. purposes: analytics (events are kept in the store),
            sharing (they go to the destinations as well); both where none is named.

        Returns Accepted, or a falsy Refused: bad_user_id, bad_purpose, or as track(). Under
        strict a wrong value is raised as ValueError.
        """
        return _decide("consent.grant", user_id, purposes, granted=True)

    def withdraw(self, user_id: str | int, *purposes: str) -> Verdict:
        """This person does not agree, or not any more: likewise. What was stored stays."""
        return _decide("consent.withdraw", user_id, purposes, granted=False)


consent = Consent()


def _decide(call: str, user_id: str | int, purposes: tuple[str, ...], *, granted: bool) -> Verdict:
    sink = runtime.active.events
    if sink is None:
        return NOT_CONFIGURED
    known = identity.checked("user_id", user_id)
    if known is None:
        return refuse(call, "bad_user_id", "user_id must have 1 to 255 characters", depth=3)
    if wrong := [purpose for purpose in purposes if purpose not in PURPOSES]:
        remedy = f"purpose {str(wrong[0])[:32]!r} is not one of {', '.join(PURPOSES)}"
        return refuse(call, "bad_purpose", remedy, depth=3)
    verdict: Verdict = runtime.ACCEPTED
    for purpose in purposes or PURPOSES:
        verdict = sink.decide(known, purpose, granted=granted) and verdict
    return verdict
