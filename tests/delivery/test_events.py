"""Events and outcomes show what may be shown."""

from __future__ import annotations

import dataclasses

import pytest

from pbmon.delivery.events import Event, Outcome
from tests.delivery.samples import event


def test_an_event_shows_its_id_alone():
    assert repr(event(0)) == "Event(id='00000000-0000-0000-0000-000000000001')"


def test_an_outcome_of_nothing_is_empty():
    empty = Outcome()
    assert (empty.delivered, empty.dead, empty.again) == ((), {}, ())
    assert (empty.retry_after_s, empty.fault) == (None, "")


@pytest.mark.parametrize("kind", [Event, Outcome])
def test_they_do_not_change(kind):
    made = event(0) if kind is Event else Outcome()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(kind)[0].name, "x")
