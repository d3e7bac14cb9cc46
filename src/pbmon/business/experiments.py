"""Experiments: who gets which variant, and the exposures that are recorded of it."""

from __future__ import annotations

import time

from opentelemetry.metrics import Meter

from pbmon import catalog, experiments, identity, runtime, signals
from pbmon.business import reading
from pbmon.business.intake import Taker
from pbmon.business.refusals import refuse
from pbmon.experiments import Experiment, ExperimentReport
from pbmon.runtime import ACCEPTED, NOT_CONFIGURED, Refused, Verdict
from pbmon.settings import Settings
from pbmon.spool import entries

APPLICATION = "application"
_OURS = "pbmon"

_MAX_RECENT = 20_000
_RECENT_S = 3600.0
"""For how long an exposure is not recorded again at least: after it, as the person may have agreed
to it meanwhile."""

UNKNOWN = Refused("unknown_experiment")
UNKNOWN_VARIANT = Refused("unknown_variant")
NO_SUBJECT = Refused("no_subject")
DISABLED = Refused("disabled")
NO_CONSENT = Refused("no_consent")

_Key = tuple[str, str, str | None, str | None, bool]


class Recent:
    """What came lately: at most twice `size` items, each for at least `seconds` where there is
    room. Two generations, of which the older one is let go; threads lock nothing."""

    def __init__(self, size: int = _MAX_RECENT, seconds: float = _RECENT_S) -> None:
        self._size = size
        self._seconds = seconds
        self._newer: dict[_Key, object] = {}
        self._older: dict[_Key, object] = {}
        self._since_s = time.monotonic()

    def take(self, key: _Key) -> bool:
        """Whether it is new; of many threads one is told so."""
        now_s = time.monotonic()
        if len(self._newer) >= self._size or now_s - self._since_s >= self._seconds:
            self._older, self._newer, self._since_s = self._newer, {}, now_s
        if key in self._older:
            return False
        mine = object()
        return self._newer.setdefault(key, mine) is mine

    def forget(self, key: _Key) -> None:
        self._newer.pop(key, None)


class Experiments:
    """The runtime.ExperimentSink. apply() changes the declarations while it runs."""

    def __init__(self, settings: Settings, meter: Meter, intake: Taker) -> None:
        self._counts = signals.Counts(catalog.EXPOSURES, meter)
        self._intake = intake
        self._recent = Recent()
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self._declared = settings.experiments
        for experiment in self._declared.values():  # at 0, so that the first one is an increase
            for variant in experiment.variants:
                self._cell(experiment.key, variant)

    def assign(self, key: str, user_id: str | None) -> str | Refused | None:
        experiment = self._declared.get(key)
        if experiment is None:
            return UNKNOWN
        user_id, session_id = _subject(user_id)
        subject = user_id or session_id
        if not experiment.enabled or subject is None:
            return None
        variant = experiments.assign(experiment, subject)
        if variant is not None:
            self._record(experiment, variant, user_id, session_id, _OURS)
        return variant

    def expose(self, key: str, variant: str, user_id: str | None, assigned_by: str) -> Verdict:
        experiment = self._declared.get(key)
        if experiment is None:
            return UNKNOWN
        if variant not in experiment.variants:
            return UNKNOWN_VARIANT
        if not experiment.enabled:
            return DISABLED
        user_id, session_id = _subject(user_id)
        if user_id is None and session_id is None:
            return NO_SUBJECT
        return self._record(experiment, variant, user_id, session_id, assigned_by)

    def _record(
        self,
        experiment: Experiment,
        variant: str,
        user_id: str | None,
        session_id: str | None,
        assigned_by: str,
    ) -> Verdict:
        person = identity.current()
        consent = person.consent_of(user_id) if person is not None else None
        verdict = NO_CONSENT if consent is False else ACCEPTED
        # A transaction with an outbox may be undone: what it says may have to be said again.
        remembers = runtime.outbox.get() is None
        seen = (experiment.key, variant, user_id, session_id, consent is False)
        if remembers and not self._recent.take(seen):
            return verdict
        if consent is False:
            self._cell(experiment.key, variant).up()
            return verdict
        at = time.time_ns() // 1000
        entry = entries.Exposure(
            at, experiment.key, variant, user_id, session_id, assigned_by, consent
        )
        reason = self._intake.put(entries.encode(entry))
        if reason:
            self._recent.forget(seen)
            return Refused(reason)
        self._cell(experiment.key, variant).up()
        return ACCEPTED

    def _cell(self, key: str, variant: str) -> signals.Cell:
        return self._counts.cell(
            ((catalog.FLAG_KEY.name, key), (catalog.FLAG_VARIANT.name, variant))
        )


def _subject(user_id: str | None) -> tuple[str | None, str | None]:
    """User or session, whichever is known first; the other is None."""
    if user_id is not None:
        return user_id, None
    person = identity.current()
    if person is None:
        return None, None
    return (person.user_id, None) if person.user_id is not None else (None, person.session_id)


def experiment(key: str, *, user_id: str | int | None = None) -> str | None:
    """The variant of an experiment that the current subject gets, and record that they got it.

    key: of [experiments.KEY] in the settings. user_id: whose variant; if left out, the user of
        the request or of pbmon.context(), else its session.

    Always the same variant for the same subject, whatever process is asked. None: give them what
    everybody has. So it is for an experiment that is not enabled, somebody who is not in its
    share, where neither user nor session is known, and before configure(). Also for an experiment
    that is not declared: that is counted and told with the remedy, and under strict a ValueError.
    Never raises for a backend's fault; costs no connection.
    The exposure goes to the store, if the person agrees to `analytics`, and to the metric
    pbmon.experiment.exposures; once for each subject.
    """
    sink = runtime.active.experiments
    if sink is None:
        return None
    known = _checked(key, user_id)
    if user_id is not None and known is None:
        refuse("experiment", "bad_user_id", _BAD_USER_ID)
        return None
    variant = sink.assign(key, known)
    if isinstance(variant, Refused):
        refuse("experiment", variant.reason, _unknown(key))
        return None
    return variant


def expose(key: str, variant: str, *, user_id: str | int | None = None) -> Verdict:
    """Record that somebody met a variant which something else has chosen for them.

    key, variant: as [experiments.KEY] in the settings declares them. user_id: who met it; if left
        out, the user of the request or of pbmon.context(), else its session.

    Returns Accepted, also for what is recorded already; or a falsy Refused: unknown_experiment,
    unknown_variant, bad_user_id; disabled, no_subject, no_consent; full, io_error,
    no_state_directory, busy, shut_down; not_configured before configure(). Under strict the first
    three are raised as ValueError. Of a person's variants the first counts.
    Goes to the store, if the person agrees to `analytics`, and to the metric
    pbmon.experiment.exposures; once for each subject and variant.
    """
    sink = runtime.active.experiments
    if sink is None:
        return NOT_CONFIGURED
    known = _checked(key, user_id)
    if not isinstance(variant, str):
        raise TypeError(f"variant must be str, not {type(variant).__name__}")
    if user_id is not None and known is None:
        return refuse("expose", "bad_user_id", _BAD_USER_ID)
    verdict = sink.expose(key, variant, known, APPLICATION)
    if verdict == UNKNOWN:
        return refuse("expose", UNKNOWN.reason, _unknown(key))
    if verdict == UNKNOWN_VARIANT:
        names = ", ".join(runtime.active.settings.experiments[key].variants)
        remedy = (
            f"variant {variant[:32]!r} is not one of {names}; declare it in [experiments.{key}]"
        )
        return refuse("expose", UNKNOWN_VARIANT.reason, remedy)
    return verdict


_BAD_USER_ID = "user_id must have 1 to 255 characters"


def _checked(key: str, user_id: str | int | None) -> str | None:
    if not isinstance(key, str):
        raise TypeError(f"key must be str, not {type(key).__name__}")
    return identity.checked("user_id", user_id) if user_id is not None else None


def _unknown(key: str) -> str:
    known = ", ".join(list(runtime.active.settings.experiments)[:20]) or "none"
    return (
        f"experiment {key[:32]!r} is not declared; declare it in [experiments.…] of pbmon.toml "
        f"(declared: {known})"
    )


def experiment_report(key: str) -> ExperimentReport:
    """What an experiment says so far: people, conversions, and whether variants differ.

    key: of [experiments.KEY] in the settings; ValueError for another one.

    Returns an ExperimentReport: `variants` (each with people, converted, rate and the comparison
    with the control), `is_sound`, `crossed`, and `decision` in words. A number of people below 10
    is None. It may be looked at as often as one likes: intervals and p-values are always valid.
    Asks the store; raises pbmon.StoreError, with the remedy, where it can't be asked.
    """
    if not isinstance(key, str):
        raise TypeError(f"key must be str, not {type(key).__name__}")
    store = reading.store()
    declared = runtime.active.settings.experiments.get(key)
    if declared is None:
        raise ValueError(f"pbmon.experiment_report: {_unknown(key)}")
    return experiments.judge(declared, store.exposed(key, declared.goal, declared.window_s))
