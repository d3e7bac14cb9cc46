"""The job `conversions`: money that came when its rate was not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pbmon import signals
from pbmon.money import Rates

if TYPE_CHECKING:
    from pbmon.store.conversion import Conversions

_AT_ONCE = 1000


def convert_waiting(conversions: Conversions, rates: Rates) -> int:
    """Convert what has a rate by now; how many. Raises StoreError.

    Those of the currencies and days that are waited for are fetched first, outside of any
    transaction.
    """
    wanted = conversions.wanted()
    if not wanted:
        return 0
    with signals.guard("fetching rates"):
        rates.refresh(wanted)
    converted = 0
    while True:
        done = conversions.convert(rates, _AT_ONCE)
        converted += done
        if done < _AT_ONCE:
            return converted
