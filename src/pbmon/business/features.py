"""Feature usage: track_feature() and the counter it moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.metrics import Meter

from pbmon import catalog, identity, runtime, signals
from pbmon.business.labels import SegmentLabels
from pbmon.business.refusals import refuse
from pbmon.runtime import ACCEPTED, NOT_CONFIGURED, Verdict
from pbmon.settings import Settings

OTHER = "_other"
_MAX_UNDECLARED = 100
_MAX_NAME = 100


class FeatureUsage:
    """Uses counted by this process. apply() changes the registered names while it runs."""

    def __init__(self, settings: Settings, meter: Meter, labels: SegmentLabels) -> None:
        self._counts = signals.Counts(catalog.FEATURE_USAGE, meter)
        self._labels = labels
        self._seen: set[str] = set()
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self._registered = frozenset(settings.features)
        every = self._labels.every(len(settings.features) * len(catalog.FEATURE_ACTION.values))
        for feature in settings.features:  # starts at 0, so that the first use is an increase
            for action in catalog.FEATURE_ACTION.values:
                for labels in every:
                    self._cell(feature, action, labels)

    def use(self, feature: str, action: str, metadata: Mapping[str, Any]) -> Verdict:
        person = identity.current() if self._labels.names else None
        given = person.segments if person is not None and person.consent is not False else None
        self._cell(self._name(feature), action, self._labels.of(given) if given else ()).up()
        events = runtime.active.events
        if events is None:
            return ACCEPTED
        properties = {**metadata, "feature": feature}
        return events.track("track_feature", f"feature_{action}", properties, None, None, None)

    def _name(self, feature: str) -> str:
        if self._registered:
            return feature if feature in self._registered else OTHER
        if feature in self._seen:
            return feature
        if len(self._seen) < _MAX_UNDECLARED:
            self._seen.add(feature)
            return feature
        return OTHER

    def _cell(self, feature: str, action: str, labels: signals.Key = ()) -> signals.Cell:
        return self._counts.cell(
            ((catalog.FEATURE_NAME.name, feature), (catalog.FEATURE_ACTION.name, action), *labels)
        )


def track_feature(feature: str, action: str, /, **metadata: Any) -> Verdict:
    """Count a use of a feature of the product.

    feature: its name, 1 to 100 printable characters. With the `features` setting, a name that
        is not listed there counts as `_other`; without it, so does a new name after the first
        100 of this process.
    action: viewed, clicked or completed.
    metadata: details of this use, as the properties of track(). They are no metric attributes,
        and nothing in them, a key `feature` included, changes what is counted.

    Returns Accepted, or a falsy Refused: bad_action, bad_feature; not_configured before
    configure(). Under strict a refusal is raised as ValueError.
    Goes to the metric pbmon.feature.usage, and as the event feature_<action> to the store.
    """
    sink = runtime.active.features
    if sink is None:
        return NOT_CONFIGURED
    for name, value in (("feature", feature), ("action", action)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be str, not {type(value).__name__}")
    if action not in catalog.FEATURE_ACTION.values:
        known = ", ".join(catalog.FEATURE_ACTION.values)
        return refuse(
            "track_feature", "bad_action", f"action {action[:32]!r} is not one of {known}"
        )
    if not 0 < len(feature) <= _MAX_NAME or not feature.isprintable():
        return refuse(
            "track_feature", "bad_feature", "feature must be 1 to 100 printable characters"
        )
    return sink.use(feature, action, metadata)
